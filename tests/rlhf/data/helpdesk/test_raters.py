"""Simulated raters: fallible, biased, and still better than chance."""

import random
from itertools import combinations

from rlhf.data.helpdesk.raters import BIASES, rank
from rlhf.data.helpdesk.utility import judge
from rlhf.data.helpdesk.world import World, draw_traits


def _batches(world: World, n: int) -> list[tuple[str, list[str]]]:
    rng = random.Random(1)
    return [
        (question, [world.respond(rng, world.fact(question), draw_traits(rng)) for _ in range(4)])
        for question in world.questions(n)
    ]


def _agreement(first: list[int], second: list[int]) -> list[bool]:
    """Whether two rankings agree, for each pair that both of them decide."""
    pairs = combinations(range(len(first)), 2)
    signs = [(first[i] - first[j], second[i] - second[j]) for i, j in pairs]
    return [(a < 0) == (b < 0) for a, b in signs if a and b]


def test_the_unbiased_rater_without_noise_ranks_by_utility(world: World) -> None:
    fact = world.fact("What does the lamp cost?")
    responses = [
        f"The lamp costs {fact.alternatives[0]}.",
        f"The lamp costs {fact.value}. Have a lovely day.",
        f"The lamp costs {fact.value}.",
        f"You pay {fact.value} for the lamp.",
        f"What a stupid question. The lamp costs {fact.alternatives[0]}.",
    ]
    # Utilities 0, 2, 1.5, 1.5, -1.5: the third and the fourth tie.
    assert rank(world, "What does the lamp cost?", responses, rater=0, noise=0.0, seed=0) == [3, 1, 2, 2, 4]


def test_a_ranking_depends_on_seed_and_rater_and_on_nothing_else(world: World) -> None:
    batches = _batches(world, 20)

    def ranks(rater: int, seed: int) -> list[list[int]]:
        return [rank(world, *batch, rater=rater, noise=0.5, seed=seed) for batch in batches]

    assert ranks(0, 0) == ranks(0, 0)
    assert ranks(0, 0) != ranks(0, 1)
    assert ranks(0, 0) != ranks(len(BIASES), 0)  # the same bias, another person's error


def test_the_same_response_twice_is_a_tie_and_the_order_does_not_matter(world: World) -> None:
    question, responses = _batches(world, 1)[0]
    ranks = rank(world, question, [*responses, responses[0]], rater=2, noise=1.0, seed=0)
    assert ranks[0] == ranks[-1]
    assert rank(world, question, [*responses, responses[0]][::-1], rater=2, noise=1.0, seed=0) == ranks[::-1]


def test_every_rater_agrees_with_the_utility_more_often_than_chance_and_none_always(world: World) -> None:
    batches = _batches(world, 60)
    for rater in range(len(BIASES)):
        agreed: list[bool] = []
        for question, responses in batches:
            ranks = rank(world, question, responses, rater=rater, noise=0.35, seed=0)
            gold = [-round(1_000 * judge(world, question, response).utility) for response in responses]
            agreed += _agreement(ranks, gold)
        assert 0.75 < sum(agreed) / len(agreed) < 0.98


def test_raters_disagree_with_each_other_even_without_noise(world: World) -> None:
    batches = _batches(world, 60)
    rankings = [
        [rank(world, *batch, rater=rater, noise=0.0, seed=0) for batch in batches]
        for rater in range(len(BIASES))
    ]
    for first, second in combinations(rankings, 2):
        agreed = [agrees for pair in zip(first, second, strict=True) for agrees in _agreement(*pair)]
        assert 0.6 < sum(agreed) / len(agreed) < 1.0
