from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from rlhf.evaluation.contrasts import Contrast, contrasts, holm, letters, mean_intervals
from schemas.record import Interval


def test_a_pair_is_scipys_paired_t_test():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2, 40)) + generator.normal(size=40)
    (found,) = contrasts(values, confidence=0.9)
    theirs = stats.ttest_rel(values[0], values[1])
    interval = theirs.confidence_interval(0.9)
    assert found.p_value == pytest.approx(theirs.pvalue, abs=1e-12)
    assert (found.difference.low, found.difference.high) == pytest.approx(
        (interval.low, interval.high), abs=1e-12
    )


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.04 times 3, 2, 1 is 0.03, 0.04, 0.04.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    # A later one is never smaller than an earlier one, and none is above 1.
    assert holm([0.3, 0.3, 0.9]) == pytest.approx([0.9, 0.9, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_what_all_methods_share_does_not_blur_their_difference():
    generator = np.random.default_rng(1)
    prompts = generator.normal(0, 10, size=50)
    values = np.stack([prompts, prompts + 0.5 + generator.normal(0, 0.1, size=50)])
    assert contrasts(values, confidence=0.95)[0].apart
    first, second = mean_intervals(values, confidence=0.95)
    assert first.high > second.low  # unpaired, they overlap widely


def test_equal_methods_are_equal_and_a_difference_without_spread_is_judged_by_its_signs():
    three = np.array([0.1, 0.2, 0.3])
    same, other, _ = contrasts(np.stack([three, three, three + 0.7]), confidence=0.95)
    assert (same.p_value, same.apart) == (1.0, False)
    # All of three signs agree in a quarter of the cases by chance; times three pairs.
    assert other.p_value == pytest.approx(0.75)
    assert not other.apart
    many = np.linspace(0, 1, 40)
    (found,) = contrasts(np.stack([many, many + 0.7]), confidence=0.95)
    assert found.apart


@pytest.mark.parametrize("shape", [(1, 5), (3, 1), (3,)])
def test_too_little_to_compare_is_refused(shape):
    with pytest.raises(ValueError, match="at least 2"):
        contrasts(np.zeros(shape), confidence=0.95)


def _family_wise(draw, wrong_pairs, *, rounds=1500, methods=5):
    """Return the share of rounds in which a pair of equal methods is called apart, corrected and not."""
    generator = np.random.default_rng(7)
    corrected = plain = 0
    for _ in range(rounds):
        values = draw(generator, methods)
        found = [one for one in contrasts(values, confidence=0.95) if wrong_pairs(one)]
        corrected += any(one.apart for one in found)
        plain += any(
            stats.ttest_rel(values[one.first], values[one.second]).pvalue < 0.05 for one in found[:4]
        )
    return corrected / rounds, plain / rounds


def _skewed_prompts(generator, methods):
    shared = generator.exponential(size=100)
    return np.stack([shared + generator.exponential(size=100) for _ in range(methods)])


def _four_seeds(generator, methods):
    return (
        generator.normal(size=4) + generator.normal(size=(methods, 4)) * np.linspace(0.2, 1, methods)[:, None]
    )


@pytest.mark.integration
@pytest.mark.parametrize("draw", [_skewed_prompts, _four_seeds], ids=["100 skewed prompts", "4 uneven seeds"])
def test_equal_methods_are_called_apart_in_five_percent_of_comparisons_at_most(draw):
    corrected, plain = _family_wise(draw, lambda one: True)
    assert corrected < 0.05 + 3 * (0.05 * 0.95 / 1500) ** 0.5
    assert plain > 0.1  # four uncorrected pairs are already wrong twice as often


@pytest.mark.integration
def test_methods_that_do_differ_take_no_more_than_their_share_of_the_error():
    def draw(generator, methods):
        values = _skewed_prompts(generator, methods)
        values[:2] += 5.0  # two good methods, three equal ones; each group is equal within
        return values

    corrected, _ = _family_wise(draw, lambda one: (one.first < 2) == (one.second < 2))
    assert corrected < 0.05 + 3 * (0.05 * 0.95 / 1500) ** 0.5


def test_methods_that_share_a_letter_are_not_told_apart():
    apart = {(0, 1), (0, 2), (0, 3), (1, 3)}
    found = [
        Contrast(
            first=first,
            second=second,
            difference=Interval(value=0.0, low=0.0, high=0.0),
            p_value=0.5,
            apart=(first, second) in apart,
        )
        for first, second in combinations(range(4), 2)
    ]
    # The first one alone, then a chain in which the middle one is like both of its neighbours.
    assert letters(found) == ["a", "b", "bc", "c"]
