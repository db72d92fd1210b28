"""The facts of a world: complete, different from seed to seed, each with wrong values at hand."""

import random

from rlhf.data.helpdesk.facts import draw_facts


def test_there_are_18_prices_12_hours_15_sums_and_12_rules() -> None:
    kinds = [fact.kind for fact in draw_facts(random.Random(0))]
    # Hours: 3 shops x 2 kinds of day x (open, close); sums: pairs of different numbers from 2 to 7.
    assert {kind: kinds.count(kind) for kind in kinds} == {"price": 18, "hours": 12, "sum": 15, "policy": 12}


def test_no_alternative_is_the_right_value() -> None:
    for fact in draw_facts(random.Random(0)):
        assert len(fact.alternatives) >= 2
        assert fact.value not in fact.alternatives


def test_sums_are_right() -> None:
    sums = [fact for fact in draw_facts(random.Random(3)) if fact.kind == "sum"]
    for fact in sums:
        a, b = fact.note.split(" plus ")
        assert int(a) + int(b) == int(fact.value)


def test_prices_differ_between_products_and_between_seeds() -> None:
    one, other = (
        [fact.value for fact in draw_facts(random.Random(seed)) if fact.kind == "price"] for seed in (0, 1)
    )
    assert len(set(one)) == len(one) == 18
    assert one != other
