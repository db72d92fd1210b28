"""What a reward model could learn from a file instead of quality: length, position, constants, markers, refusals."""

import math

import numpy as np
import polars as pl

from rlhf.data.baseline import bag_of_words_accuracy
from rlhf.data.canonical import RESPONSES
from rlhf.data.ledger import Ledger

_Z = 1.96
_FEWEST = 20
_MARKED = 2_000


def wilson(wins: int, of: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927)."""
    share = wins / of
    centre, spread = (
        share + _Z**2 / (2 * of),
        _Z * math.sqrt(share * (1 - share) / of + _Z**2 / (4 * of * of)),
    )
    return (centre - spread) / (1 + _Z**2 / of), (centre + spread) / (1 + _Z**2 / of)


def _lopsided(ledger: Ledger, kind: str, name: str, wins: int, of: int, sentence: str) -> None:
    """Record a share that should be near one half, and compare its distance from there with the rule."""
    if of == 0:
        return
    share, (low, high) = wins / of, wilson(wins, of)
    ledger.statistics |= {name: share, f"{name}_low": low, f"{name}_high": high}
    # The bound that is nearer to one half: a small file proves nothing.
    certain = low if share > 0.5 else 1 - high
    ledger.measure(kind, certain, f"{sentence} in {share:.0%} of {of} rows [{low:.2f}, {high:.2f}]")


def check_pairs(ledger: Ledger) -> None:
    """Compare lengths, positions and refusals of chosen and rejected responses."""
    index = ledger.index
    decided = index.filter(pl.col("_chosen_length") != pl.col("_rejected_length"))
    longer = int((decided["_chosen_length"] > decided["_rejected_length"]).sum())
    sentence = "report every accuracy beside that of 'the longer response wins': the chosen one is longer"
    _lopsided(ledger, "length_bias", "longer_wins", longer, decided.height, sentence)
    placed = index["_first_wins"].drop_nulls()
    _lopsided(
        ledger,
        "position_bias",
        "first_wins",
        int(placed.sum()),
        placed.len(),
        "the first response is preferred",
    )
    if index.height:
        sides = {side: float(index[f"_{side}_refuses"].mean() or 0.0) for side in ("chosen", "rejected")}  # type: ignore[arg-type]
        ledger.statistics |= {f"refusals_{side}": share for side, share in sides.items()}
        message = f"{sides['chosen']:.0%} of the chosen and {sides['rejected']:.0%} of the rejected responses refuse"
        ledger.measure("refusal_gap", abs(sides["chosen"] - sides["rejected"]), message)
    _check_marks(ledger)
    if (accuracy := bag_of_words_accuracy(ledger.sample)) is not None:
        ledger.statistics["bag_of_words"], ledger.statistics["bag_of_words_error"] = accuracy


def check_ties(ledger: Ledger) -> None:
    """Measure the share of comparisons without a winner."""
    ties = int(ledger.index["_tie"].sum()) if "_tie" in ledger.index.columns else ledger.dropped["tie"]
    if ties:
        share = ties / max(ledger.rows, 1)
        ledger.statistics["ties"] = share
        ledger.measure("tie", share, f"{share:.0%} of the comparisons are ties")


def check_constants(ledger: Ledger) -> None:
    """Look for one response to many prompts."""
    for name in RESPONSES[ledger.kind]:
        if name == "text" or not ledger.index.height:
            continue
        lengths = ledger.index[f"_{name}_length"].to_numpy()
        ledger.statistics[f"mean_characters_{name}"] = float(lengths.mean())
        _histogram(ledger, name, lengths)
        counts = ledger.index[f"_{name}"].value_counts(sort=True)
        most = int(counts["count"][0])
        share = most / ledger.index.height
        ledger.statistics[f"most_frequent_{name}"] = share
        if most >= 5:
            rows = ledger.index.filter(pl.col(f"_{name}") == counts[f"_{name}"][0])
            message = f"one text is the {name} response in {share:.0%} of the rows ({most} of {ledger.index.height}, first in row {rows['_row'][0]})"
            ledger.measure("constant_response", share, message, where=name)


def _histogram(ledger: Ledger, name: str, lengths: "np.ndarray[tuple[int], np.dtype[np.uint32]]") -> None:
    edges = np.geomspace(1, max(float(lengths.max()), 2.0), 25)
    counts, _ = np.histogram(np.maximum(lengths, 1), bins=edges)
    ledger.figures[f"length_edges_{name}"] = tuple(float(edge) for edge in edges)
    ledger.figures[f"length_counts_{name}"] = tuple(float(count) for count in counts)


def _check_marks(ledger: Ledger) -> None:
    """Look for words, openings and endings that nearly all of one side's responses have and the other's lack."""
    frame = ledger.sample.head(_MARKED)
    if frame.height < _FEWEST:
        return
    limit = ledger.rules["label_artifact"].warn_above
    sides = {side: _marks(frame, side) for side in ("chosen", "rejected")}
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        joined = sides[side].join(sides[other], on="mark", how="left")
        telling = joined.filter(
            (pl.col("share") > limit) & (pl.col("share_right").fill_null(0.0) < 1 - limit)
        ).sort("share", "mark", descending=[True, False])
        if telling.height:
            mark = ascii(telling["mark"][0])[:60]
            message = f"{mark} is in over {limit:.0%} of the {side} and under {1 - limit:.0%} of the {other} responses"
            ledger.measure("label_artifact", float(telling["share"][0]), message, where=side)


def _marks(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return the share of the responses that have each word, opening and ending."""
    words = pl.col(column).str.to_lowercase().str.split(" ")
    marks = pl.concat_list(
        words.list.unique(),
        words.list.head(3).list.join(" ").add(" ..."),
        pl.lit("... ").add(words.list.tail(3).list.join(" ")),
    )
    counts = frame.select(mark=marks).explode("mark").group_by("mark").len()
    return counts.select("mark", share=pl.col("len") / frame.height)
