"""Agreement against another implementation; reliabilities and warnings against raters whose habits are known."""

import random

import krippendorff
import numpy as np
import pytest

from rlhf.feedback import raters, weights
from rlhf.feedback.agreement import agreement
from rlhf.feedback.collected import Standing
from rlhf.feedback.votes import Pair, votes


def answer(position, rater, ranks, **more):
    values = {
        "position": position, "prompt_id": str(position), "rater": rater, "rater_id": sum(map(ord, rater)),
        "excluded": False, "gold": None, "ranks": ranks, "flags": [], "order": list(range(len(ranks))),
        "skip_reason": None, "seconds": 9.0, "created_at": 0.0,
    }  # fmt: skip
    return Standing(**{**values, **more})


def noisy(items=60, names=("ann", "bob", "cy"), noise=1.0, size=4, seed=0):
    rng = random.Random(seed)
    found = []
    for item in range(items):
        worth = [rng.gauss(0, 1) for _ in range(size)]
        for name in names:
            felt = [value + rng.gauss(0, noise) for value in worth]
            order = sorted(range(size), key=lambda index: -felt[index])
            found.append(answer(item, name, [order.index(index) // 2 * 1 + 1 for index in range(size)]))
    return found


def test_alpha_is_what_the_krippendorff_package_computes():
    given = votes(noisy())
    names = ("ann", "bob", "cy")
    matrix = np.array([[given[pair].get(name, np.nan) for pair in given] for name in names], dtype=float)
    expected = krippendorff.alpha(reliability_data=matrix, level_of_measurement="nominal")
    found = agreement(given)
    assert found.alpha.value == pytest.approx(expected, rel=0, abs=1e-9)
    assert found.alpha.low < found.alpha.value < found.alpha.high
    assert found.items == 60


def test_alpha_with_missing_votes_is_the_same_too():
    answers = [answer for index, answer in enumerate(noisy()) if index % 4]
    given = votes(answers)
    matrix = np.array(
        [[given[pair].get(name, np.nan) for pair in given] for name in ("ann", "bob", "cy")], dtype=float
    )
    expected = krippendorff.alpha(reliability_data=matrix, level_of_measurement="nominal")
    assert agreement(given).alpha.value == pytest.approx(expected, rel=0, abs=1e-9)


def test_pairwise_agreement_by_hand():
    # Of the pairs (0,1), (0,2), (1,2) the two raters agree on the first two.
    given = votes([answer(0, "ann", [1, 2, 3]), answer(0, "bob", [1, 3, 2]), answer(1, "ann", [1, 2, 3])])
    found = agreement(given)
    assert found.pairwise.value == pytest.approx(2 / 3)
    assert found.items == 1


def test_one_rater_alone_agrees_with_nobody():
    assert agreement(votes(noisy(names=("ann",)))) is None


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    truth = agreement(votes(noisy(items=3000, seed=99))).alpha.value
    covered = 0
    for seed in range(60):
        found = agreement(votes(noisy(items=40, seed=seed))).alpha
        covered += found.low <= truth <= found.high
    assert covered >= 51  # 95% of 60 is 57; fewer than 51 happens once in hundreds


def test_reliabilities_are_recovered_without_any_known_answer():
    rng = random.Random(1)
    true = {"good": 0.95, "better": 0.9, "fair": 0.8, "weak": 0.7, "coin": 0.5}
    given = {}
    for item in range(2000):
        direction = rng.choice([-1, 1])
        given[Pair(item, 0, 1)] = {
            name: direction if rng.random() < right else -direction for name, right in true.items()
        }
    found = weights.fit(given)
    for name, right in true.items():
        assert found.reliability[name] == pytest.approx(right, abs=0.06)
    assert found.weight("good") > found.weight("fair") > found.weight("coin")


def test_one_step_of_em_by_hand():
    # Both start at 4/6 right. Two equal votes: posterior = 4/(4+1) = 0.8, so each is (4 + .8) / 7 right after a step;
    # the fixed point solves p = (4 + p^2 / (p^2 + (1-p)^2)) / 7.
    found = weights.fit({Pair(0, 0, 1): {"a": 1, "b": 1}}).reliability["a"]
    assert found == pytest.approx((4 + found**2 / (found**2 + (1 - found) ** 2)) / 7, abs=1e-6)


def test_gold_answers_enter_as_known():
    given = {Pair(item, 0, 1): {"a": 1, "b": -1} for item in range(20)}
    found = weights.fit(given, known=dict.fromkeys(given, 1))
    assert found.reliability["a"] == pytest.approx(24 / 26)
    assert found.reliability["b"] == pytest.approx(4 / 26)
    assert found.weight("b") == 0.0


def test_careless_raters_are_named_with_their_reasons_and_careful_ones_are_not():
    rng = random.Random(5)
    answers = []
    for item in range(80):
        gold = [1, 2, 3] if item % 8 == 0 else None
        order = rng.sample(range(3), 3)
        for name in ("ann", "bob", "cy"):
            ranks = [1, 2, 3] if rng.random() < 0.9 else [2, 1, 3]
            answers.append(answer(item, name, ranks, order=order, gold=gold))
        first = [1 if order[0] == index else 2 for index in range(3)]
        answers.append(answer(item, "top", first, order=order, gold=gold))
        answers.append(answer(item, "swift", [1, 2, 3], order=order, gold=gold, seconds=0.7))
    found = {rater.name: rater for rater in raters.statistics(answers)}
    for name in ("ann", "bob", "cy"):
        assert found[name].warnings == ()
        assert found[name].gold >= 0.8
    assert "answers in 0.7 s" in found["swift"].warnings
    assert any("shown first wins 100%" in warning for warning in found["top"].warnings)
    assert any("known pairs" in warning for warning in found["top"].warnings)
    assert found["top"].reliability < found["ann"].reliability


@pytest.mark.parametrize("seed", range(4))
def test_weighted_votes_point_the_right_way_at_least_as_often_as_counted_ones(seed):
    # Five raters who err on a quarter of the pairs on average, each in a measure of their own.
    rng = random.Random(seed)
    right = {"a": 0.97, "b": 0.9, "c": 0.75, "d": 0.6, "e": 0.53}
    truth, given = {}, {}
    for item in range(3000):
        pair = Pair(item, 0, 1)
        truth[pair] = rng.choice([-1, 1])
        given[pair] = {name: truth[pair] * (1 if rng.random() < p else -1) for name, p in right.items()}
    fitted = weights.fit(given).left_is_better
    weighted = sum((fitted[pair] > 0.5) == (truth[pair] > 0) for pair in truth)
    counted = sum((sum(given[pair].values()) > 0) == (truth[pair] > 0) for pair in truth)
    assert weighted > counted + 100
