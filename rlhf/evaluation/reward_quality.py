"""The diagnostics of a reward model: how often it is right, on which pairs, how sure, and what it takes for quality."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl

from rlhf.evaluation.calibration import Floats, calibrate, correlation, exceeds, partial_correlation
from rlhf.evaluation.intervals import bootstrap_ratio
from rlhf.evaluation.judged_pairs import won
from schemas.record import Interval
from schemas.reward_quality import Disagreement, Mistake, RewardQuality, Slice

LENGTH_MATCHED = 0.1
"""Lengths that differ by at most this share of the longer one."""
_MISTAKES = 12
_SCORE_BINS = 24
_FEW = 6
"""Different margins up to which each is a slice; more are cut into quartiles."""
_AGREEMENTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def describe(judged: pl.DataFrame, *, confidence: float, samples: int, seed: int) -> RewardQuality:
    """Describe what `judge_pairs` returned; a column `subset` gives a slice for each of its values."""
    table = judged.with_columns(
        won=won(judged),
        longer=won(judged, "chosen_tokens", "rejected_tokens"),
        prompt_number=pl.col("prompt_id").rank("dense").cast(pl.Int64) - 1,
    )

    def share(rows: pl.DataFrame, column: str = "won") -> Interval:
        by_prompt = rows.group_by("prompt_id", maintain_order=True).agg(
            pl.sum(column).alias("hits"), pl.len()
        )
        return bootstrap_ratio(
            by_prompt["hits"].to_numpy(),
            by_prompt["len"].to_numpy(),
            confidence=confidence,
            samples=samples,
            seed=seed,
        )

    scores, lengths, preferred = (
        np.concatenate([table[f"chosen_{name}"].to_numpy(), table[f"rejected_{name}"].to_numpy()]).astype(
            float
        )
        if name
        else np.repeat([1.0, 0.0], table.height)
        for name in ("score", "tokens", "")
    )
    edges = np.histogram_bin_edges(scores, bins=_SCORE_BINS)
    return RewardQuality(
        pairs=table.height,
        prompts=table["prompt_id"].n_unique(),
        accuracy=share(table),
        longer_baseline=share(table, "longer"),
        slices=tuple(
            Slice(by=by, name=name, pairs=rows.height, accuracy=share(rows))
            for by, name, rows in _slices(table)
            if rows.height
        ),
        length_correlation=correlation(scores, lengths),
        partial_length_correlation=partial_correlation(scores, lengths, preferred),
        calibration=calibrate(table["gap"].to_numpy(), (table["prompt_number"] % 2).to_numpy()),
        score_edges=tuple(edges.tolist()),
        chosen_counts=_counts(table["chosen_score"].to_numpy(), edges),
        rejected_counts=_counts(table["rejected_score"].to_numpy(), edges),
        mistakes=_mistakes(table),
        disagreement=_disagreement(table),
    )


def _slices(table: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Yield what the pairs were sorted by, the name of a slice, and its rows."""
    chosen, rejected = pl.col("chosen_tokens"), pl.col("rejected_tokens")
    allowed = LENGTH_MATCHED * pl.max_horizontal("chosen_tokens", "rejected_tokens")
    yield "length", "matched", table.filter((chosen - rejected).abs() <= allowed)
    yield "length", "chosen longer", table.filter(chosen > rejected)
    yield "length", "chosen shorter", table.filter(chosen < rejected)
    yield from _by_margin(table)
    if (table["weight"] != 1).any():
        for low, high in pairwise(_AGREEMENTS):
            yield (
                "agreement",
                f"{low:g} to {high:g}",
                table.filter((pl.col("weight") > low) & (pl.col("weight") <= high)),
            )
        yield "agreement", "several votes", table.filter(pl.col("weight") > 1)
    if "subset" in table.columns:
        for name in sorted(table["subset"].drop_nulls().unique()):
            yield "subset", name, table.filter(pl.col("subset") == name)


def _by_margin(table: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame]]:
    margins = table["margin"].drop_nulls()
    values = sorted(margins.unique())
    if len(values) < 2:
        return
    if len(values) <= _FEW:
        for value in values:
            yield "margin", f"{value:g}", table.filter(pl.col("margin") == value)
        return
    edges = sorted({float(value) for value in np.quantile(margins.to_numpy(), [0, 0.25, 0.5, 0.75, 1])})
    for number, (low, high) in enumerate(pairwise(edges)):
        above = pl.col("margin") >= low if number == 0 else pl.col("margin") > low
        yield "margin", f"{low:.3g} to {high:.3g}", table.filter(above & (pl.col("margin") <= high))


def _counts(values: Floats, edges: Floats) -> tuple[float, ...]:
    return tuple(np.histogram(values, bins=edges)[0].astype(float).tolist())


def _mistakes(table: pl.DataFrame) -> tuple[Mistake, ...]:
    wrong = table.filter(pl.col("gap") < 0).sort("gap", maintain_order=True).head(_MISTAKES)
    return tuple(
        Mistake(
            prompt="\n".join(f"{turn['role']}: {turn['content']}" for turn in row["prompt"]),
            **{name: row[name] for name in ("chosen", "rejected", "chosen_score", "rejected_score")},
        )
        for row in wrong.iter_rows(named=True)
    )


def _disagreement(table: pl.DataFrame) -> Disagreement | None:
    if not (table["disagreement"] > 0).any():
        return None
    right, wrong = (
        table.filter((pl.col("won") == 1) == side)["disagreement"].to_numpy() for side in (True, False)
    )
    return Disagreement(
        when_right=float(right.mean()) if right.size else 0.0,
        when_wrong=float(wrong.mean()) if wrong.size else 0.0,
        finds_mistakes=exceeds(wrong, right),
    )
