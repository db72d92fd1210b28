import math

import pytest
import torch

from rlhf.algorithms.preferences import (
    bradley_terry,
    centring,
    comparison_shares,
    length_correlation,
    plackett_luce,
)

ALL = torch.ones(1, 3, dtype=torch.bool)


def _better(size: int, *pairs: tuple[int, int, float]) -> torch.Tensor:
    better = torch.zeros(1, size, size)
    for left, right, weight in pairs:
        better[0, left, right] = weight
    return better


def _softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_bradley_terry_by_hand():
    scores = torch.tensor([[1.0, 0.0, -1.0]])
    shares = comparison_shares(_better(3, (0, 1, 1.0), (0, 2, 0.5), (2, 1, 1.0)), ALL)
    # three pairs, so each counts a third: gaps 1, 2, -1; -log sigmoid(x) = log(1 + e^-x)
    expected = (_softplus(-1.0) + 0.5 * _softplus(-2.0) + _softplus(1.0)) / 3
    assert bradley_terry(scores, shares).item() == pytest.approx(expected, abs=1e-6)
    assert shares.sum().item() == pytest.approx(2.5 / 3, abs=1e-6)


def test_three_responses_count_as_much_as_two_and_ties_less():
    two = _better(3, (0, 1, 1.0))
    three = _better(3, (0, 1, 1.0), (0, 2, 1.0), (1, 2, 1.0))
    tied = _better(3, (0, 1, 1.0), (0, 2, 1.0))  # the last two share a rank
    mask = torch.tensor([[True, True, False], [True, True, True], [True, True, True]])
    shares = comparison_shares(torch.cat([two, three, tied]), mask)
    assert shares.sum(dim=(1, 2)).tolist() == pytest.approx([1.0, 1.0, 2 / 3])


def test_a_margin_is_asked_of_the_gap_and_smoothing_mixes_in_the_swapped_pair():
    scores, shares = torch.tensor([[2.0, 0.5]]), _better(2, (0, 1, 1.0))
    margins = _better(2, (0, 1, 1.0))
    # gap 1.5 less margin 1 is 0.5
    assert bradley_terry(scores, shares, margins_GKK=margins).item() == pytest.approx(
        _softplus(-0.5), abs=1e-6
    )
    expected = 0.9 * _softplus(-1.5) + 0.1 * _softplus(1.5)
    assert bradley_terry(scores, shares, label_smoothing=0.1).item() == pytest.approx(expected, abs=1e-6)


def test_equal_scores_cost_ln_2_and_the_padding_costs_nothing():
    scores = torch.tensor([[0.3, 0.3, 9.0]])
    assert bradley_terry(scores, _better(3, (0, 1, 1.0))).item() == pytest.approx(math.log(2), abs=1e-6)


def test_plackett_luce_by_hand():
    scores, ranks = torch.tensor([[0.0, 1.0, 2.0, 7.0]]), torch.tensor([[2, 1, 3, 0]])
    # the second of three is chosen first, then the first of the two that are left; the fourth was not ranked
    first = math.exp(1) / (math.exp(0) + math.exp(1) + math.exp(2))
    second = math.exp(0) / (math.exp(0) + math.exp(2))
    expected = -(math.log(first) + math.log(second)) / 2
    assert plackett_luce(scores, ranks).item() == pytest.approx(expected, abs=1e-6)


def test_two_responses_give_the_bradley_terry_loss():
    scores = torch.tensor([[0.3, -1.2], [2.0, 2.5]])
    pairs = torch.cat([_better(2, (0, 1, 1.0)), _better(2, (1, 0, 1.0))])
    torch.testing.assert_close(
        plackett_luce(scores, torch.tensor([[1, 2], [2, 1]])), bradley_terry(scores, pairs), rtol=0, atol=1e-6
    )


def test_the_likelihoods_of_all_orders_add_up_to_one():
    scores = torch.tensor([0.3, -0.5, 1.1])
    orders = torch.tensor([[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]])
    likelihoods = (-2 * plackett_luce(scores.expand(6, 3), orders)).exp()  # two choices each
    assert likelihoods.sum().item() == pytest.approx(1.0, abs=1e-6)


def test_a_tie_by_hand_is_likeliest_at_equal_scores_and_ranks_above_the_rest():
    scores, ranks = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1, 1, 2]])
    # both are chosen from all three, then the last from itself: two choices
    chosen = math.exp(1) / (2 * math.exp(1) + 1)
    assert plackett_luce(scores, ranks).item() == pytest.approx(-2 * math.log(chosen) / 2, abs=1e-6)
    for moved in ([1.2, 0.8, 0.0], [0.8, 1.2, 0.0]):
        assert plackett_luce(torch.tensor([moved]), ranks).item() > plackett_luce(scores, ranks).item()
    free = scores.clone().requires_grad_()
    plackett_luce(free, ranks).sum().backward()
    assert free.grad[0, 0] == free.grad[0, 1] < 0 < free.grad[0, 2]


def test_what_was_not_ranked_gets_no_gradient_and_places_do_not_matter():
    scores = torch.tensor([[0.5, -1.0, 3.0]], requires_grad=True)
    loss = plackett_luce(scores, torch.tensor([[1, 2, 0]]))
    loss.sum().backward()
    assert scores.grad[0, 2] == 0
    assert torch.isfinite(scores.grad).all()
    moved = plackett_luce(torch.tensor([[3.0, -1.0, 0.5]]), torch.tensor([[0, 2, 1]]))
    torch.testing.assert_close(moved, loss.detach(), rtol=0, atol=1e-6)


def test_a_shift_of_all_scores_changes_neither_loss_but_the_centring():
    scores, ranks = torch.tensor([[0.5, -1.0, 3.0]]), torch.tensor([[1, 2, 3]])
    shares, mask = comparison_shares(_better(3, (0, 1, 1.0), (2, 1, 1.0)), ALL), ALL
    for loss in (lambda s: bradley_terry(s, shares), lambda s: plackett_luce(s, ranks)):
        torch.testing.assert_close(loss(scores + 5), loss(scores), rtol=0, atol=1e-5)
    assert centring(scores, mask).item() == pytest.approx((2 * 2.5 / 3) ** 2, abs=1e-6)


def test_centring_of_two_responses_is_the_square_of_their_sum_and_skips_padding():
    scores, mask = torch.tensor([[1.5, -0.5, 99.0]]), torch.tensor([[True, True, False]])
    assert centring(scores, mask).item() == pytest.approx(1.0, abs=1e-6)


def test_length_correlation_by_hand_is_within_prompts():
    scores = torch.tensor([[1.0, 2.0, 0.0], [10.0, 12.0, 99.0]])
    lengths = torch.tensor([[5.0, 7.0, 6.0], [100.0, 98.0, 1.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    # centred scores 0 1 -1 | -1 1, lengths -1 1 0 | 1 -1: sums of products 1 - 2, of squares 4 and 4
    assert length_correlation(scores, lengths, mask).item() == pytest.approx(-0.25, abs=1e-6)
    equal = torch.zeros(1, 3, requires_grad=True)
    length_correlation(equal, lengths[:1], mask[:1]).square().backward()
    assert torch.isfinite(equal.grad).all()
