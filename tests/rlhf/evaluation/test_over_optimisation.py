import itertools
import math

import numpy as np
import pytest

from rlhf.evaluation.over_optimisation import (
    best_of_n,
    best_of_n_kl,
    fit,
    frontier_of_best,
    frontier_of_policies,
    peak_kl,
)
from schemas.frontier import FrontierPoint


def test_best_of_n_is_the_mean_over_all_subsets():
    scores, golds = np.random.default_rng(0).normal(size=(2, 3, 6))
    found = best_of_n(scores, golds, [1, 2, 4, 6])
    for prompt in range(3):
        for column, n in enumerate([1, 2, 4, 6]):
            best = [
                golds[prompt][max(subset, key=lambda place: scores[prompt][place])]
                for subset in itertools.combinations(range(6), n)
            ]
            assert found[prompt, column] == pytest.approx(np.mean(best), abs=1e-12)


def test_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match="best of 3 among 2"):
        best_of_n(np.zeros((1, 2)), np.zeros((1, 2)), [3])


def test_kl_of_best_of_n():
    # log 4 - 3/4 = 1.386294 - .75
    assert best_of_n_kl(1) == 0.0
    assert best_of_n_kl(4) == pytest.approx(0.636294, abs=1e-6)


def test_kl_of_best_of_n_is_that_of_its_distribution():
    # Best of 3 of uniform numbers has density 3 x^2: KL = integral of 3 x^2 log(3 x^2) = log 3 - 2/3.
    x = (np.arange(200_000) + 0.5) / 200_000
    assert best_of_n_kl(3) == pytest.approx(np.mean(3 * x**2 * np.log(3 * x**2)), abs=1e-6)


@pytest.mark.parametrize(
    ("form", "curve"),
    [
        ("best_of_n", lambda d: 0.7 + d * (1.5 - 0.4 * d)),
        ("rl", lambda d: 0.7 + d * (1.5 - 0.4 * np.log(np.maximum(d, 1e-300)))),
    ],
)
def test_planted_coefficients_are_found(form, curve):
    distances = np.linspace(0, 3, 20)
    found = fit(form, distances, np.stack([curve(distances), 2 * curve(distances)]))
    np.testing.assert_allclose(found, [[0.7, 1.5, 0.4], [1.4, 3.0, 0.8]], atol=1e-9)


def test_peaks_by_hand_and_against_a_search():
    # best-of-n: d* = 1.5 / .8 = 1.875; rl: d* = exp(1.5 / .4 - 1) = exp(2.75)
    coefficients = np.array([[0.0, 1.5, 0.4], [0.0, 1.5, -0.1], [0.0, -1.0, 0.4]])
    assert peak_kl("best_of_n", coefficients).tolist() == pytest.approx([1.875**2, np.inf, 0.0])
    assert peak_kl("rl", coefficients)[0] == pytest.approx(math.exp(5.5))
    grid = np.linspace(0.01, 20, 200_000)
    best = grid[np.argmax(grid * (1.5 - 0.4 * np.log(grid)))]
    assert math.sqrt(peak_kl("rl", coefficients)[0]) == pytest.approx(best, abs=1e-3)


def learning(noise: float, reach: float, seed: int = 0) -> list[FrontierPoint]:
    """Gold 1 + d (2 - 1.2 log d): it turns at d = exp(2 / 1.2 - 1) = 1.948, KL 3.79."""
    generator = np.random.default_rng(seed)
    points = []
    for number, kl in enumerate(np.linspace(0, reach, 40)):
        d = math.sqrt(kl)
        gold = 1 + d * (2 - 1.2 * math.log(d or 1)) + generator.normal(scale=noise)
        points.append(FrontierPoint(label=f"iteration {number}", kl=kl, score=d, gold=gold))
    return points


def test_a_peak_among_the_points_is_the_budget():
    found = frontier_of_policies("ppo", learning(0.05, 16.0), confidence=0.95, samples=300, seed=0)
    assert found.turned
    assert found.budget_kl == pytest.approx(math.exp(2 / 1.2 - 1) ** 2, rel=0.1)
    assert found.gold_fit.peak_kl.low < math.exp(2 / 1.2 - 1) ** 2 < found.gold_fit.peak_kl.high
    assert found.gold_fit.residual == pytest.approx(0.05, abs=0.02)


def test_gold_that_still_rises_has_no_peak_and_the_budget_is_what_was_measured():
    found = frontier_of_policies("ppo", learning(0.01, 2.0), confidence=0.95, samples=200, seed=0)
    assert not found.turned
    assert found.budget_kl == 2.0


def test_intervals_of_coefficients_cover_the_truth():
    covered = 0
    for seed in range(100):
        found = frontier_of_policies(
            "ppo", learning(0.2, 16.0, seed), confidence=0.95, samples=200, seed=seed
        )
        covered += found.gold_fit.alpha.low <= 2.0 <= found.gold_fit.alpha.high
    # The bootstrap of 40 pairs is a little short of its level; binomial noise at 100 repetitions is 2 points.
    assert covered >= 87


def test_best_of_n_of_a_proxy_that_is_gold_never_turns():
    golds = np.random.default_rng(1).normal(size=(64, 16))
    sizes = [1, 2, 4, 8, 16]
    honest = frontier_of_best(golds, golds, sizes, confidence=0.95, samples=100, seed=0)
    assert [point.score for point in honest.points] == [point.gold for point in honest.points]
    assert honest.points[0].gold == pytest.approx(golds.mean(), abs=1e-12)
    assert honest.points[-1].gold == pytest.approx(golds.max(axis=1).mean(), abs=1e-12)
    assert not honest.turned
    blind = frontier_of_best(
        np.random.default_rng(2).normal(size=golds.shape), golds, sizes, confidence=0.95, samples=100, seed=0
    )
    assert abs(blind.points[-1].gold - blind.points[0].gold) < 0.3


def test_noise_alone_is_hardly_ever_taken_for_a_turn():
    turned = peaked = 0
    for seed in range(30):
        noise = np.random.default_rng(seed).normal(size=30)
        points = [
            FrontierPoint(label="", kl=kl, score=0.0, gold=float(gold))
            for kl, gold in zip(np.linspace(0, 9, 30).tolist(), noise, strict=True)
        ]
        found = frontier_of_policies("ppo", points, confidence=0.95, samples=200, seed=seed)
        peak = found.gold_fit.peak_kl
        peaked += peak is not None and peak.value <= 9
        turned += found.turned
    assert peaked > 8  # the fitted curve has its highest point among the points often enough
    assert turned <= 3
