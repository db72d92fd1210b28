"""How far to trust each rater: Dawid and Skene's model with one parameter per rater, fitted by EM.

Dawid & Skene, Maximum likelihood estimation of observer error-rates using the EM algorithm, 1979, in the one-coin
form: rater r gives the true direction of a pair with probability p_r, independently of the pair. Ties say nothing
about it and are left out. The answer to a gold question is known and enters as such.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rlhf.feedback.votes import Pair, Votes

_PRIOR_RIGHT, _PRIOR_WRONG = 4.0, 2.0
"""A Beta prior: who has answered little is taken for somewhat better than chance."""
_ROUNDS = 200
_CLOSE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Raters' reliabilities, and what they make of each pair."""

    reliability: dict[str, float]
    """Probability that a rater's vote has the true direction."""
    left_is_better: dict[Pair, float]
    """Posterior per pair with at least one vote that is no tie."""

    def weight(self, rater: str) -> float:
        """Return the log odds of a rater's reliability, what one vote of theirs is worth; 0: nothing."""
        reliability = min(max(self.reliability.get(rater, 0.5), 1e-6), 1 - 1e-6)
        return max(0.0, math.log(reliability / (1 - reliability)))


def worth(reliability: Mapping[str, float]) -> dict[str, float]:
    """Return what each rater's ranking counts: 2 r - 1 for reliability r, which is |2 p - 1| of a pair that they alone saw.

    0: their votes are no better than chance.
    """
    return {rater: max(0.0, 2 * value - 1) for rater, value in reliability.items()}


def fit(votes: Votes, known: Mapping[Pair, int] | None = None) -> Fit:
    """Estimate reliabilities and directions; `known` holds the directions of gold pairs (1: left)."""
    known = known or {}
    directed = {pair: {rater: vote for rater, vote in given.items() if vote} for pair, given in votes.items()}
    directed = {pair: given for pair, given in directed.items() if given}
    raters = sorted({rater for given in directed.values() for rater in given})
    start = _PRIOR_RIGHT / (_PRIOR_RIGHT + _PRIOR_WRONG)
    reliability = dict.fromkeys(raters, start)
    posterior: dict[Pair, float] = {}
    for _ in range(_ROUNDS):
        posterior = {
            pair: _posterior(given, reliability, known.get(pair)) for pair, given in directed.items()
        }
        right = dict.fromkeys(raters, _PRIOR_RIGHT)
        total = dict.fromkeys(raters, _PRIOR_RIGHT + _PRIOR_WRONG)
        for pair, given in directed.items():
            for rater, vote in given.items():
                right[rater] += posterior[pair] if vote > 0 else 1 - posterior[pair]
                total[rater] += 1
        updated = {rater: right[rater] / total[rater] for rater in raters}
        moved = max((abs(updated[rater] - reliability[rater]) for rater in raters), default=0.0)
        reliability = updated
        if moved < _CLOSE:
            break
    return Fit(reliability=reliability, left_is_better=posterior)


def directions(votes: Votes, reliability: Mapping[str, float]) -> dict[Pair, float]:
    """Return the probability that left is better, given how reliable each rater is; who is not known counts as chance."""
    known = {rater: min(max(value, 0.01), 0.99) for rater, value in reliability.items()}
    return {
        pair: _posterior(
            {rater: vote for rater, vote in given.items() if vote and rater in known}, known, None
        )
        for pair, given in votes.items()
    }


def _posterior(given: Mapping[str, int], reliability: Mapping[str, float], known: int | None) -> float:
    if known:
        return float(known > 0)
    log_odds = sum(
        vote * math.log(reliability[rater] / (1 - reliability[rater])) for rater, vote in given.items()
    )
    return 1 / (1 + math.exp(-max(-500.0, min(500.0, log_odds))))
