"""What a reward model could learn from a file instead of quality: length, constants, markers."""

import math

import polars as pl

from schemas.reports import Finding

_Z = 1.96
_FEWEST = 20


def length_bias(frame: pl.DataFrame) -> tuple[dict[str, float], list[Finding]]:
    """Return the accuracy of 'the longer response wins' with its Wilson interval, and a warning if it is telling."""
    sizes = frame.select(a=pl.col("chosen").str.len_chars(), b=pl.col("rejected").str.len_chars())
    decided = sizes.filter(pl.col("a") != pl.col("b"))
    n = decided.height
    if n == 0:
        return {}, []
    share = decided.filter(pl.col("a") > pl.col("b")).height / n
    centre, spread = share + _Z**2 / (2 * n), _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
    low, high = (centre - spread) / (1 + _Z**2 / n), (centre + spread) / (1 + _Z**2 / n)
    statistics = {"longer_wins": share, "longer_wins_low": low, "longer_wins_high": high}
    if low > 0.65 or high < 0.35:
        message = f"the longer response is chosen in {share:.0%} of the pairs; report every accuracy beside that rule's"
        return statistics, [Finding(kind="length_bias", message=message)]
    return statistics, []


def constant_responses(frame: pl.DataFrame, column: str) -> tuple[float, list[Finding]]:
    """Return the share of the most frequent response, and a warning if it is in more than 5% of the rows."""
    counts = frame.select(pl.col(column).str.strip_chars().alias("text")).group_by("text").len()
    most = int(counts["len"].max() or 0)  # type: ignore[arg-type]
    share = most / max(frame.height, 1)
    if most < 5 or share <= 0.05:
        return share, []
    message = f"one text is the {column} response in {share:.0%} of the rows ({most} of {frame.height})"
    return share, [Finding(kind="constant_response", field=column, message=message)]


def label_marks(frame: pl.DataFrame) -> list[Finding]:
    """Warn of words, openings and endings that 90% of one side's responses have and 10% of the other's lack."""
    if frame.height < _FEWEST:
        return []
    sides = {side: _marks(frame, side) for side in ("chosen", "rejected")}
    found = []
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        joined = (
            sides[side]
            .join(sides[other], on="mark", how="left")
            .with_columns(pl.col("share_right").fill_null(0))
        )
        telling = joined.filter((pl.col("share") > 0.9) & (pl.col("share_right") < 0.1)).sort("mark")
        if telling.height:
            mark = ascii(telling["mark"][0])[:60]
            message = f"{mark} is in over 90% of the {side} and under 10% of the {other} responses"
            found.append(Finding(kind="label_artifact", field=side, message=message))
    return found


def _marks(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return the share of the (first 2,000) responses that have each word, opening and ending."""
    head = frame.head(2_000)
    words = pl.col(column).str.to_lowercase().str.split(" ")
    marks = pl.concat_list(
        words.list.unique(),
        words.list.head(3).list.join(" ").add(" ..."),
        pl.lit("... ").add(words.list.tail(3).list.join(" ")),
    )
    counts = head.select(mark=marks).explode("mark").group_by("mark").len()
    return counts.select("mark", share=pl.col("len") / head.height)
