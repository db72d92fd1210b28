import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from rlhf.evaluation import bounds
from schemas.record import Interval

Z = 1.959963984540054
"""The normal quantile of an error of 2.5 %."""


def test_a_difference_of_paired_shares_with_nothing_discordant_keeps_its_width():
    # Without discordant pairs the score equation is n d^2 = z^2 d (1 - d), so the bound is z^2 / (n + z^2).
    found = bounds.paired_shares(0, 0, 100, 0.025)
    assert found.value == 0
    assert found.high == pytest.approx(Z**2 / (100 + Z**2), abs=1e-9)
    assert found.low == pytest.approx(-found.high, abs=1e-9)


def test_swapping_sides_swaps_the_bounds():
    one, other = bounds.paired_shares(31, 12, 200, 0.01), bounds.paired_shares(12, 31, 200, 0.01)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)


def test_a_bound_at_zero_is_mcnemars_test():
    # (b - c) / sqrt(b + c) = z where the lower bound of the difference is 0.
    b, c = 60, 40
    error = 1 - 0.5 * (1 + math.erf((b - c) / math.sqrt(b + c) / math.sqrt(2)))
    assert bounds.paired_shares(b, c, 300, error).low == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("b", "c", "n"), [(12, 3, 40), (1, 0, 25), (0, 4, 30), (80, 60, 200)])
def test_each_bound_solves_the_score_equation_with_the_likelihood_maximised_by_search(b, c, n):
    found = bounds.paired_shares(b, c, n, 0.025)
    for delta, sign in ((found.low, 1), (found.high, -1)):

        def unlikely(lost: float, delta: float = delta) -> float:
            both = 1 - 2 * lost - delta
            parts = ((b, lost + delta), (c, lost), (n - b - c, both))
            return -sum(count * math.log(max(share, 1e-300)) for count, share in parts if count)

        lowest, highest = max(0.0, -delta), (1 - delta) / 2
        best = minimize_scalar(unlikely, bounds=(lowest, highest), method="bounded", options={"xatol": 1e-12})
        variance = n * (2 * best.x + delta - delta**2)
        assert sign * (b - c - n * delta) / math.sqrt(variance) == pytest.approx(Z, abs=2e-3)


def test_everything_won_has_a_lower_bound_below_one():
    found = bounds.paired_shares(50, 0, 50, 0.025)
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.8 < found.low < 0.95


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_counts_are_refused(b, c, n):
    with pytest.raises(ValueError, match="at most n of both together"):
        bounds.paired_shares(b, c, n, 0.025)


def test_the_mean_by_hand():
    # 1, 2, 3: mean 2, standard deviation 1, t(2 degrees, 2.5 %) = 4.302653; half = 4.302653 / sqrt(3)
    found = bounds.mean(np.array([1.0, 2.0, 3.0]), 0.025)
    assert (found.low, found.value, found.high) == pytest.approx((-0.484138, 2.0, 4.484138), abs=1e-5)
    assert bounds.mean(np.array([1.0]), 0.025).high == math.inf


def test_a_ratio_meets_its_limit_where_the_t_test_of_the_contrast_does():
    generator = np.random.default_rng(0)
    theirs = generator.gamma(9, 3, 300)
    ours = 1.2 * theirs + generator.normal(0, 4, 300)
    found = bounds.ratio(ours, theirs, 0.05)
    assert found.value == pytest.approx(ours.mean() / theirs.mean(), abs=1e-12)
    assert bounds.mean(ours - found.high * theirs, 0.05).high == pytest.approx(0, abs=1e-6)
    assert bounds.mean(ours - found.low * theirs, 0.05).low == pytest.approx(0, abs=1e-6)


def test_a_ratio_of_equal_values_is_one_without_any_width():
    values = np.array([3.0, 5.0, 8.0])
    found = bounds.ratio(values, values, 0.05)
    assert (found.low, found.value, found.high) == pytest.approx((1, 1, 1), abs=1e-9)


def test_two_known_intervals_make_the_interval_of_their_difference():
    # Zou and Donner: low = 0.1 - hypot(0.6 - 0.57, 0.54 - 0.5), high = 0.1 + hypot(0.64 - 0.6, 0.5 - 0.47)
    found = bounds.difference(
        Interval(value=0.6, low=0.57, high=0.64), Interval(value=0.5, low=0.47, high=0.54)
    )
    assert (found.low, found.value, found.high) == pytest.approx((0.05, 0.1, 0.15), abs=1e-9)


def test_bounds_move_to_another_error_as_quantiles_do():
    # 95 % two-sided is 2.5 % a side; 0.5 % a side is 2.575829 / 1.959964 as far.
    found = bounds.at_error(Interval(value=1.0, low=0.9, high=1.2), 0.95, 0.005)
    assert (found.low, found.high) == pytest.approx((1 - 0.131422, 1 + 0.262845), abs=1e-5)


def test_score_bounds_err_as_often_as_they_say():
    """Simulated: 300 prompts, 40 % ties, no true difference; the lower bound lies above 0 in 2.5 % of 4,000 draws."""
    generator = np.random.default_rng(1)
    counts = generator.multinomial(300, [0.3, 0.3, 0.4], size=4_000)
    wrong = np.mean([bounds.paired_shares(b, c, 300, 0.025).low > 0 for b, c, _ in counts])
    assert wrong == pytest.approx(0.025, abs=3 * math.sqrt(0.025 * 0.975 / 4_000))
