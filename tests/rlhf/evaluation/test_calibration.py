import math

import numpy as np
import pytest

from rlhf.evaluation.calibration import (
    calibrate,
    correlation,
    exceeds,
    expected_error,
    fit_temperature,
    partial_correlation,
    reliability,
)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_the_calibration_error_by_hand():
    # three pairs with confidence 0.8, two of them right; one with 0.95, wrong
    gaps = np.array([_logit(0.8), _logit(0.8), -_logit(0.8), -_logit(0.95)])
    low, high = reliability(gaps, bins=5)
    assert (low.pairs, low.confidence, low.accuracy) == (3, pytest.approx(0.8), pytest.approx(2 / 3))
    assert (high.pairs, high.confidence, high.accuracy) == (1, pytest.approx(0.95), 0.0)
    assert expected_error((low, high)) == pytest.approx((3 * (0.8 - 2 / 3) + 0.95) / 4)


def test_a_tie_of_the_scores_is_half_right():
    (found,) = reliability(np.array([0.0, 0.0]))
    assert (found.confidence, found.accuracy) == (0.5, 0.5)


def test_the_temperature_is_the_one_that_was_planted():
    generator = np.random.default_rng(0)
    gaps = generator.normal(0, 2, size=40_000)
    right = generator.random(40_000) < 1 / (1 + np.exp(-np.abs(gaps)))
    gaps = np.where(right, np.abs(gaps), -np.abs(gaps))  # as the Bradley-Terry model says
    assert fit_temperature(gaps) == pytest.approx(1.0, abs=0.03)
    assert fit_temperature(3 * gaps) == pytest.approx(3.0, abs=0.1)
    found = calibrate(3 * gaps, np.arange(40_000) % 2)
    assert found.error > 0.08
    assert found.fitted_error < 0.01


def test_the_fitted_temperature_solves_its_equation():
    gaps = np.array([2.0, 1.0, -0.5])
    scale = 1 / fit_temperature(gaps)
    assert sum(gap / (1 + math.exp(scale * gap)) for gap in gaps) == pytest.approx(0.0, abs=1e-6)


def test_pairs_are_judged_with_a_temperature_of_other_prompts():
    gaps = np.array([5.0, -5.0, 0.1, 0.2])
    found = calibrate(gaps, np.array([0, 0, 1, 1]))
    # The second fold has no mistake, so the first one's gaps are taken for certain; fitted on themselves they would not be.
    assert max(bin_.confidence for bin_ in found.fitted_bins) > 0.99
    assert found.fitted_error > 0.2


def test_correlations_by_hand():
    left, right = np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])
    assert correlation(left, right) == pytest.approx(0.5)
    assert correlation(left, np.ones(3)) == 0.0
    generator = np.random.default_rng(1)
    cause = generator.normal(size=2_000)
    one, other = cause + generator.normal(size=2_000), cause + generator.normal(size=2_000)
    plain = [correlation(a, b) for a, b in ((one, other), (one, cause), (other, cause))]
    expected = (plain[0] - plain[1] * plain[2]) / math.sqrt((1 - plain[1] ** 2) * (1 - plain[2] ** 2))
    assert partial_correlation(one, other, cause) == pytest.approx(expected, abs=1e-9)
    assert abs(expected) < 0.1 < plain[0]


def test_the_area_under_the_roc_curve_by_hand():
    # 3 beats both, 1 beats 0 and ties 1: (1 + 1 + 1 + 0.5) / 4
    assert exceeds(np.array([3.0, 1.0]), np.array([0.0, 1.0])) == pytest.approx(0.875)
    assert exceeds(np.array([]), np.array([1.0])) == 0.5
