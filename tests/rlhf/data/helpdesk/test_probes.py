"""Counterfactual pairs: one flaw apart, on questions that nothing was trained on."""

from collections import Counter

from rlhf.data.helpdesk.probes import FLAWS, counterfactual_pairs
from rlhf.data.helpdesk.utility import Judgement, judge
from rlhf.data.helpdesk.world import World


def _flaws(judgement: Judgement) -> set[str]:
    seen = {
        "wrong": not judgement.right,
        "rude": judgement.rude,
        "rambling": judgement.rambling,
        "trivia": judgement.trivia,
        "discourteous": not judgement.courteous,
    }
    return {flaw for flaw, present in seen.items() if present}


def test_pairs_differ_in_exactly_the_flaw_that_they_name(world: World) -> None:
    for pair in counterfactual_pairs(world, 100, seed=0):
        better, worse = (judge(world, pair.question, text) for text in (pair.better, pair.worse))
        assert _flaws(worse) - _flaws(better) == {pair.flaw}
        assert not _flaws(better) - _flaws(worse)
        assert better.utility > worse.utility


def test_what_is_not_the_flaw_is_the_same_word_for_word(world: World) -> None:
    for pair in counterfactual_pairs(world, 100, seed=0):
        if pair.flaw == "wrong":
            fact = world.fact(pair.question)
            assert pair.worse in {pair.better.replace(f" {fact.value}", f" {v}") for v in fact.alternatives}
        else:
            longer, shorter = sorted((pair.better, pair.worse), key=len, reverse=True)
            rest = iter(longer.split())
            assert all(
                word in rest for word in shorter.split()
            )  # in order: nothing was changed, only left out


def test_flaws_come_in_equal_numbers_on_held_out_questions(world: World) -> None:
    pairs = counterfactual_pairs(world, 50, seed=1)
    assert Counter(pair.flaw for pair in pairs) == dict.fromkeys(FLAWS, 10)
    assert not {pair.question for pair in pairs} & set(world.questions(13_680))


def test_pairs_come_from_the_seed(world: World) -> None:
    assert counterfactual_pairs(world, 10, seed=3) == counterfactual_pairs(World(0), 10, seed=3)
    assert counterfactual_pairs(world, 10, seed=3) != counterfactual_pairs(world, 10, seed=4)
