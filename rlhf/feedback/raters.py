"""What each rater's answers look like, and who seems not to read: an admin decides, nothing is left out by itself."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rlhf.feedback import weights
from rlhf.feedback.collected import Standing
from rlhf.feedback.votes import Pair, Votes, compared, votes

MIN_ANSWERS = 10
"""Fewer answers give no warning."""
MIN_SECONDS = 2.0
MIN_GOLD = 0.7
MIN_GOLD_PAIRS = 4
MIN_AGREEMENT = 0.5
MAX_POSITION_Z = 4.0


@dataclass(frozen=True, kw_only=True)
class RaterStatistics:
    """One rater in one batch; None: too little to say."""

    name: str
    id: int
    excluded: bool
    ranked: int
    skipped: int
    seconds: float | None
    """Median per item."""
    majority: float | None
    """Share of votes that are those of most other raters."""
    gold: float | None
    """Share of the pairs of gold questions that were ranked as known."""
    gold_pairs: int
    first: float | None
    """Share of sole winners that were shown first."""
    first_expected: float | None
    """The same for somebody who reads."""
    position_z: float | None
    """How many standard deviations lie between the two."""
    reliability: float | None
    """Probability that a vote has the true direction (`weights.py`)."""
    warnings: tuple[str, ...]


def statistics(answers: Sequence[Standing]) -> list[RaterStatistics]:
    """Describe every rater of a batch, those with warnings first."""
    by_rater: dict[tuple[str, int], list[Standing]] = defaultdict(list)
    for answer in answers:
        by_rater[answer.rater, answer.rater_id].append(answer)
    given = votes(answers)
    fitted = weights.fit(given, known_pairs(answers))
    found = [_describe(name, key, mine, given, fitted) for (name, key), mine in by_rater.items()]
    return sorted(found, key=lambda rater: (-len(rater.warnings), rater.name))


def reliabilities(answers: Sequence[Standing]) -> dict[str, float]:
    """Return the probability that each rater's vote has the true direction, gold questions counted."""
    counted = [answer for answer in answers if not answer.excluded]
    return weights.fit(votes(counted), known_pairs(counted)).reliability


def known_pairs(answers: Sequence[Standing]) -> dict[Pair, int]:
    """Return the directions of the pairs of gold questions that are known."""
    return {
        Pair(answer.position, left, right): direction
        for answer in answers
        if answer.gold is not None
        for left, right, direction in compared(answer.gold)
        if direction
    }


def _describe(
    name: str, key: int, mine: Sequence[Standing], given: Votes, fitted: weights.Fit
) -> RaterStatistics:
    ranked = [answer for answer in mine if answer.ranks is not None]
    times = [answer.seconds for answer in ranked if answer.seconds is not None]
    seconds = median(times) if times else None
    majority = _with_majority(name, ranked, given)
    gold, gold_pairs = _gold(ranked)
    first, expected, z = _position(ranked)
    warnings = []
    if len(ranked) >= MIN_ANSWERS:
        if seconds is not None and seconds < MIN_SECONDS:
            warnings.append(f"answers in {seconds:.1f} s")
        if z is not None and abs(z) > MAX_POSITION_Z:
            warnings.append(f"the response shown first wins {first:.0%} of the time")
        if majority is not None and majority < MIN_AGREEMENT:
            warnings.append(f"votes with the majority {majority:.0%} of the time")
    if gold is not None and gold_pairs >= MIN_GOLD_PAIRS and gold < MIN_GOLD:
        warnings.append(f"ranks {gold:.0%} of the known pairs as known")
    return RaterStatistics(
        name=name,
        id=key,
        excluded=mine[0].excluded,
        ranked=len(ranked),
        skipped=len(mine) - len(ranked),
        seconds=seconds,
        majority=majority,
        gold=gold,
        gold_pairs=gold_pairs,
        first=first,
        first_expected=expected,
        position_z=z,
        reliability=fitted.reliability.get(name),
        warnings=tuple(warnings),
    )


def _with_majority(name: str, ranked: Sequence[Standing], given: Votes) -> float | None:
    same = total = 0
    for answer in ranked:
        for left, right, vote in compared(answer.ranks or ()):
            others = Counter(
                other for who, other in given[Pair(answer.position, left, right)].items() if who != name
            ).most_common(2)
            # One other rater is no majority: where two differ, nobody knows who is wrong.
            if others and others[0][1] > max(1, others[1][1] if len(others) > 1 else 0):
                same, total = same + (vote == others[0][0]), total + 1
    return same / total if total else None


def _gold(ranked: Sequence[Standing]) -> tuple[float | None, int]:
    right = total = 0
    for answer in ranked:
        if answer.gold is None:
            continue
        mine = {(left, right): vote for left, right, vote in compared(answer.ranks or ())}
        for left, right_index, direction in compared(answer.gold):
            if direction and (left, right_index) in mine:
                right, total = right + (mine[left, right_index] == direction), total + 1
    return (right / total if total else None), total


def _position(ranked: Sequence[Standing]) -> tuple[float | None, float | None, float | None]:
    """Return how often the sole winner was shown first, how often by chance, and the deviations between them."""
    shown_first, chances = 0, []
    for answer in ranked:
        ranks = answer.ranks or []
        winners = [index for index, rank in enumerate(ranks) if rank == 1]
        # What was left unranked could not win.
        if len(winners) == 1 and ranks[answer.order[0]] is not None:
            shown_first += answer.order[0] == winners[0]
            chances.append(1 / sum(rank is not None for rank in ranks))
    if not chances:
        return None, None, None
    expected = sum(chances)
    deviation = math.sqrt(sum(chance * (1 - chance) for chance in chances))
    return shown_first / len(chances), expected / len(chances), (shown_first - expected) / deviation
