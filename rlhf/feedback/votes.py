"""Rankings as votes on pairs: what agreement, raters' weights and training pairs are computed from."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

from rlhf.feedback.collected import Standing


class Pair(NamedTuple):
    """Two responses of one item, by their index."""

    item: int
    left: int
    right: int


Votes = dict[Pair, dict[str, int]]
"""Per pair and rater: 1 for left, -1 for right, 0 for a tie."""


def votes(answers: Iterable[Standing]) -> Votes:
    """Return the votes that rankings amount to; what a rater did not rank is no vote."""
    found: Votes = {}
    for answer in answers:
        for left, right, vote in compared(answer.ranks or ()):
            found.setdefault(Pair(answer.position, left, right), {})[answer.rater] = vote
    return found


def compared(ranks: Sequence[int | None]) -> list[tuple[int, int, int]]:
    """Return (left, right, vote) for every two responses that were both ranked."""
    ranked = [(index, rank) for index, rank in enumerate(ranks) if rank is not None]
    return [
        (left, right, (left_rank < right_rank) - (left_rank > right_rank))
        for (left, left_rank), (right, right_rank) in combinations(ranked, 2)
    ]
