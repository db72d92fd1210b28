"""From rankings, which are the truth, to the pairs that are derived from them."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import polars as pl

from rlhf.feedback import weights
from rlhf.feedback.votes import Pair, Votes, compared
from schemas.tables import polars_schema

Row = dict[str, Any]

MIN_WEIGHT = 0.05
"""Pairs on which the raters' votes cancel out teach nothing."""


def pairs(
    rankings: pl.DataFrame, reliability: Mapping[str, float] | None = None, *, margins: bool = False
) -> pl.DataFrame:
    """Return every pair of differently ranked, different responses (table `preferences`).

    Ties and unranked responses give no pair (Ouyang et al. 2022, section 3.5, use all K-choose-2 pairs). Where several
    raters compared the same responses there is one pair, in the direction that is more probable given how reliable
    each rater is; its weight is |2 p - 1|. Without `reliability` it is estimated from the rankings themselves.
    With `margins`, the margin is by how many places the chosen response was ranked better, on average.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rankings.iter_rows(named=True):
        groups[json.dumps([row["prompt_id"], row["prompt"], row["responses"]])].append(row)
    several = {item: group for item, group in enumerate(groups.values()) if len(group) > 1}
    posterior = _posterior(several, reliability)
    rows: list[Row] = []
    for item, group in enumerate(groups.values()):
        if item in several:
            rows += _of_several(item, group, posterior, margins=margins)
        else:
            rows += _of_one(group[0], margins=margins)
    return pl.DataFrame(rows, schema=polars_schema("preferences"))


def _posterior(
    groups: Mapping[int, Sequence[Row]], reliability: Mapping[str, float] | None
) -> dict[Pair, float]:
    """Return the probability that left is better, for every pair that several raters compared."""
    votes: Votes = {}
    for item, group in groups.items():
        for row in group:
            for left, right, vote in compared(row["ranks"]):
                votes.setdefault(Pair(item, left, right), {})[row["rater"]] = vote
    if reliability is None:
        return weights.fit(votes).left_is_better
    return weights.directions(votes, reliability)


def _of_one(row: Row, *, margins: bool) -> list[Row]:
    ranked = [
        (rank, text, finished)
        for rank, text, finished in zip(row["ranks"], row["responses"], row["finished"], strict=True)
        if rank is not None
    ]
    return [
        _pair(row, better[1:], worse[1:], 1.0, float(worse[0] - better[0]) if margins else None)
        for better, worse in combinations(sorted(ranked), 2)
        if better[0] != worse[0] and better[1] != worse[1]
    ]


def _of_several(
    item: int, group: Sequence[Row], posterior: Mapping[Pair, float], *, margins: bool
) -> list[Row]:
    row, found = group[0], []
    sides = list(zip(row["responses"], row["finished"], strict=True))
    for left, right in combinations(range(len(sides)), 2):
        probability = posterior.get(Pair(item, left, right), 0.5)
        weight = abs(2 * probability - 1)
        if weight < MIN_WEIGHT or sides[left][0] == sides[right][0]:
            continue
        better, worse = (left, right) if probability > 0.5 else (right, left)
        places = [
            given["ranks"][worse] - given["ranks"][better]
            for given in group
            if given["ranks"][worse] is not None and given["ranks"][better] is not None
        ]
        margin = max(0.0, sum(places) / len(places)) if margins else None
        found.append(_pair(row, sides[better], sides[worse], weight, margin))
    return found


def _pair(
    row: Row, better: tuple[str, bool], worse: tuple[str, bool], weight: float, margin: float | None
) -> Row:
    return {
        "prompt_id": row["prompt_id"],
        "prompt": row["prompt"],
        "chosen": better[0],
        "rejected": worse[0],
        "chosen_finished": better[1],
        "rejected_finished": worse[1],
        "margin": margin,
        "weight": weight,
    }


def describe(rankings: pl.DataFrame, derived: pl.DataFrame) -> dict[str, float]:
    """Return how many rankings and pairs there are, and the share of response pairs that were tied."""
    sizes = rankings["ranks"].list.len()
    possible = float((sizes * (sizes - 1) // 2).sum())
    tied = sum(
        sum(left == right for left, right in combinations([rank for rank in ranks if rank is not None], 2))
        for ranks in rankings["ranks"].to_list()
    )
    return {
        "rankings": float(rankings.height),
        "pairs": float(derived.height),
        "ties": tied / possible if possible else 0.0,
    }
