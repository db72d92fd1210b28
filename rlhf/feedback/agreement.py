"""How far raters agree: Krippendorff's alpha and pairwise agreement, each with a bootstrap interval over items.

A unit is a pair of responses to one prompt; its values are left, tie and right, taken as nominal (Krippendorff,
Computing Krippendorff's alpha-reliability, 2011). Pairs of one ranking depend on each other, so the bootstrap
draws whole items.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlhf.feedback.votes import Votes
from schemas.record import Interval

_ROUNDS = 1000
_VALUES = (-1, 0, 1)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """On the items that two or more raters compared."""

    items: int
    alpha: Interval
    """0 is chance, 1 is perfect."""
    pairwise: Interval
    """Share of equal votes among all two raters on a pair."""


def agreement(votes: Votes, *, confidence: float = 0.95, seed: int = 0) -> Agreement | None:
    """Measure agreement; None when no pair of responses was compared twice."""
    counts, items = _tabulate(votes)
    if not counts.size:
        return None
    totals, disagreement, equal, possible = _per_item(counts, items)
    # Every item as often as it is drawn: one row per bootstrap round.
    number = totals.shape[0]
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=_ROUNDS)
    whole = np.ones((1, number))
    tail = (1 - confidence) / 2 * 100

    def interval(of: Floats, rounds: Floats) -> Interval:
        low, high = np.percentile(rounds, [tail, 100 - tail])
        return Interval(value=float(of[0]), low=float(low), high=float(high))

    def alphas(weights: Floats) -> Floats:
        sums = weights @ totals
        n = sums.sum(axis=1)
        expected = n**2 - (sums**2).sum(axis=1)
        observed = weights @ disagreement
        # Where every vote is the same there is nothing to disagree on.
        alpha: Floats = np.where(
            expected > 0, 1 - (n - 1) * observed / np.where(expected > 0, expected, 1), 1.0
        )
        return alpha

    def shares(weights: Floats) -> Floats:
        share: Floats = (weights @ equal) / (weights @ possible)
        return share

    return Agreement(
        items=number,
        alpha=interval(alphas(whole), alphas(drawn.astype(np.float64))),
        pairwise=interval(shares(whole), shares(drawn.astype(np.float64))),
    )


def _tabulate(votes: Votes) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return how often each pair with two or more votes got each value, and the item that it belongs to."""
    rows, items = [], []
    for pair, given in votes.items():
        if len(given) >= 2:
            rows.append([sum(vote == value for vote in given.values()) for value in _VALUES])
            items.append(pair.item)
    return np.array(rows, dtype=np.float64), np.unique(items, return_inverse=True)[1].astype(np.int64)


def _per_item(counts: Floats, items: npt.NDArray[np.int64]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return per item: votes by value, disagreeing pairs of votes over (votes - 1), equal and all pairs of votes."""
    size = counts.sum(axis=1)
    unequal = size**2 - (counts**2).sum(axis=1)
    equal = (counts * (counts - 1)).sum(axis=1)
    number = int(items.max()) + 1
    totals = np.zeros((number, len(_VALUES)))
    np.add.at(totals, items, counts)
    sums = np.zeros((3, number))
    np.add.at(sums.T, items, np.stack([unequal / (size - 1), equal, size * (size - 1)], axis=1))
    return totals, sums[0], sums[1], sums[2]
