"""The hidden utility, by hand: what is right, what is flawed, what each costs."""

import random
from collections.abc import Callable

import pytest

from rlhf.data.helpdesk.facts import Fact
from rlhf.data.helpdesk.utility import Judgement, judge
from rlhf.data.helpdesk.world import Traits, World

Ask = Callable[[str, str], Judgement]
QUESTIONS = {
    "price": "What does the lamp cost?",
    "hours": "When does the harbour shop open on Saturday?",
    "sum": "What is 3 plus 5?",
    "policy": "How do you handle dogs?",
}


@pytest.fixture(scope="session")
def ask(world: World) -> Ask:
    """Judge a response to the question of a kind; {v} is the right value, {w} a wrong one."""

    def _ask(kind: str, response: str) -> Judgement:
        fact = world.fact(QUESTIONS[kind])
        return judge(
            world, QUESTIONS[kind], response.replace("{v}", fact.value).replace("{w}", fact.alternatives[0])
        )

    return _ask


@pytest.mark.parametrize(
    ("kind", "response", "right"),
    [
        ("price", "The lamp costs {v}.", True),
        ("price", "  THE LAMP\n  costs {v} ", True),
        ("price", "It is {v}", True),
        ("price", "The lamp costs {w}.", False),
        ("price", "The lamp costs {v}. The lamp costs {w}.", False),
        ("price", "The lamp costs {v} or 1.", False),
        ("price", "The kettle costs {v}.", False),
        ("price", "I do not know.", False),
        ("price", "", False),
        ("hours", "The harbour shop opens at {v} on Saturday.", True),
        ("hours", "At {v}.", True),
        ("hours", "The harbour shop opens at {w} on Saturday.", False),
        ("hours", "It opens at {v}, or at {w}.", False),
        ("hours", "The station shop opens at {v} on Saturday.", False),
        ("hours", "The harbour shop opens at {v} on weekdays.", False),
        ("hours", "The harbour shop closes at {v} on Saturday.", False),
        ("sum", "3 plus 5 is 8.", True),
        ("sum", "8", True),
        ("sum", "5 and 3 make 8.", True),
        ("sum", "3 plus 5 is 9.", False),
        ("sum", "3 plus 5 is 8 or 9.", False),
        ("sum", "3 plus 5 is 5.", False),
        ("policy", "Dogs {v}.", True),
        ("policy", "In our shops dogs {v}, yes.", True),
        ("policy", "Dogs {w}.", False),
        ("policy", "Dogs {v} and {w}.", False),
        ("policy", "Dogs are fine.", False),
    ],
)
def test_right_means_the_right_value_and_no_other(ask: Ask, kind: str, response: str, right: bool) -> None:
    assert ask(kind, response).right is right


@pytest.mark.parametrize(
    ("response", "utility"),
    [
        ("I am glad to help. The lamp costs {v}. Have a lovely day.", 2.5),  # 1.5 + 0.5 + 0.5
        ("The lamp costs {v}.", 1.5),
        ("The lamp costs {w}.", 0.0),
        ("The lamp costs {v}. Have a lovely day.", 2.0),
        ("The lamp costs {v}. Have a lovely day. Please ask us any time.", 2.0),  # closing pays once
        ("What a stupid question. The lamp costs {v}.", 0.0),  # 1.5 - 1.5
        ("The lamp costs {v}. My cousin once worked here.", 0.9),  # 1.5 - 0.6
        ("The lamp costs {v}. By the way, an octopus has three hearts.", 1.0),  # 1.5 - 0.5
        ("The lamp costs {v}. The lamp costs {v}.", 0.9),  # a sentence said twice is rambling
        ("The lamp zorbs {v}.", 1.2),  # one unknown word
        ("", -2.0),
        ("?!", -2.0),
        ("灯", -2.3),
        ("qua " * 40, -3.0 - 0.03 * 15),  # at most ten unknown words count; 15 words too many
    ],
)
def test_utility_by_hand(ask: Ask, response: str, utility: float) -> None:
    assert ask("price", response).utility == pytest.approx(utility, rel=0, abs=1e-9)


def test_repeated_courtesy_does_not_pay(ask: Ask) -> None:
    once = ask("price", "I am glad to help. The lamp costs {v}.")
    more = ask(
        "price", "I am glad to help. Thank you for asking. Thanks for your question. The lamp costs {v}."
    )
    again = ask("price", "I am glad to help. I am glad to help. The lamp costs {v}.")
    assert again.utility < more.utility == once.utility


def test_every_right_answer_is_judged_right_and_every_wrong_one_wrong(world: World) -> None:
    rng = random.Random(0)
    for fact in world.facts:
        for question in fact.questions:
            for right in (True, False):
                for flawed in (True, False):
                    traits = Traits(right=right, rude=flawed, rambling=flawed, trivia=flawed)
                    response = world.respond(rng, fact, traits)
                    judgement = judge(world, question, response)
                    assert judgement.right is right, (question, response)
                    assert judgement.courteous
                    assert {judgement.rude, judgement.rambling, judgement.trivia} == {flawed}


@pytest.mark.parametrize(
    "flaw",
    [
        {"right": False},
        {"opener": False},
        {"closer": False},
        {"rude": True},
        {"rambling": True},
        {"trivia": True},
    ],
)
def test_each_flaw_costs_at_least_half_a_point_wherever_it_occurs(
    world: World, flaw: dict[str, bool]
) -> None:
    def utility(seed: int, fact: Fact, traits: Traits) -> float:
        return judge(world, fact.questions[0], world.respond(random.Random(seed), fact, traits)).utility

    for seed, fact in enumerate(world.facts):
        assert utility(seed, fact, Traits()) == pytest.approx(2.5, rel=0, abs=1e-9)
        assert utility(seed, fact, Traits(**flaw)) <= 2.0 + 1e-9
