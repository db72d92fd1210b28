"""Agreement with held-out preferences: by hand, and as what it estimates."""

import math

import pytest
import torch

from rlhf.algorithms.agreement import change_in_standard_errors, choice_probabilities, mean_by_prompt


def test_the_choice_between_two_responses_is_by_their_importance_weights():
    # Weights 6 and 2 against 1 and 4: 6 / 8, and 1 / 5.
    chosen, rejected = torch.tensor([6.0, 1.0]).log(), torch.tensor([2.0, 4.0]).log()
    torch.testing.assert_close(
        choice_probabilities(chosen, rejected), torch.tensor([0.75, 0.2]), rtol=0, atol=1e-6
    )
    assert choice_probabilities(chosen, chosen).tolist() == [0.5, 0.5]


def test_each_prompt_counts_once_however_many_pairs_it_has_and_a_pair_by_its_weight():
    values, weights = torch.tensor([1.0, 0.3, 0.0, 0.5]), torch.tensor([1.0, 0.2, 0.5, 0.5])
    found = mean_by_prompt(values, weights, torch.tensor([0, 1, 0, 0]))
    torch.testing.assert_close(found, torch.tensor([0.625, 0.3]), rtol=0, atol=1e-6)


def test_a_change_is_counted_in_standard_errors_of_the_paired_difference():
    # Differences -0.1, -0.2, -0.1: mean -2/15, standard deviation 1/sqrt(300), its error 1/30.
    before, now = torch.tensor([0.6, 0.7, 0.8]), torch.tensor([0.5, 0.5, 0.7])
    assert change_in_standard_errors(before, now) == pytest.approx(-4.0, abs=1e-4)
    assert change_in_standard_errors(now, before) == pytest.approx(4.0, abs=1e-4)
    assert change_in_standard_errors(before, before) == 0.0
    assert change_in_standard_errors(before[:1], now[:1]) == 0.0
    # Everybody falls by the same: there is no noise that could explain it.
    assert change_in_standard_errors(torch.ones(3), torch.zeros(3)) == -math.inf


def test_where_nothing_has_changed_two_standard_errors_are_rarely_passed():
    draws = torch.randn(2_000, 50, generator=torch.Generator().manual_seed(0))
    changes = [change_in_standard_errors(torch.zeros(50), draw) for draw in draws]
    # One side of a t distribution with 49 degrees of freedom beyond 2: 2.55 %; three standard errors are 1.1 %.
    assert sum(change < -2 for change in changes) / len(changes) == pytest.approx(0.0255, abs=0.011)
