"""Simulated raters: they feel the utility, each with a bias of their own, and err."""

import random
from dataclasses import dataclass

from rlhf.data.helpdesk.utility import COURTEOUS_OPENING, RIGHT, Judgement, judge
from rlhf.data.helpdesk.world import World

TIE = 0.1
"""Responses that feel closer than this to the best of their group share its rank."""


@dataclass(frozen=True)
class Bias:
    """What a rater adds to the utility."""

    right: float = 0.0
    courteous: float = 0.0
    per_word: float = 0.0
    flaw: float = 0.0
    """For each of rude, rambling and trivia."""

    def of(self, judgement: Judgement) -> float:
        """Return by how much this rater likes a response more than its utility says."""
        flaws = judgement.rude + judgement.rambling + judgement.trivia
        return (
            self.right * judgement.right
            + self.courteous * judgement.courteous
            + self.per_word * judgement.words
            + self.flaw * flaws
        )


BIASES = (
    Bias(),  # has none
    Bias(per_word=0.02),  # takes length for effort
    Bias(right=-RIGHT / 3),  # rarely checks the facts
    Bias(courteous=COURTEOUS_OPENING),  # values good manners twice
    Bias(per_word=-0.02, flaw=-0.3),  # is in a hurry
)
"""Rater i has bias i modulo their number."""


def rank(
    world: World, question: str, responses: list[str], *, rater: int, noise: float, seed: int
) -> list[int]:
    """Return each response's rank, 1 = best, equal = tie; `noise` is the deviation of the rater's error."""
    feelings = [_feel(world, question, text, rater=rater, noise=noise, seed=seed) for text in responses]
    ranks = [0] * len(responses)
    place, best = 0, float("inf")
    for index in sorted(range(len(responses)), key=lambda index: -feelings[index]):
        if best - feelings[index] >= TIE:
            place, best = place + 1, feelings[index]
        ranks[index] = place
    return ranks


def _feel(world: World, question: str, response: str, *, rater: int, noise: float, seed: int) -> float:
    judgement = judge(world, question, response)
    # The error belongs to the response and not to its place in the list: the same text twice is a tie.
    error = random.Random(f"rater {seed} {rater} {question} {response}").gauss(0.0, noise)
    return judgement.utility + BIASES[rater % len(BIASES)].of(judgement) + error
