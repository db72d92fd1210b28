import pytest
import torch
from torch import Tensor

from rlhf.algorithms.advantages import explained_variance, gae, group_relative, leave_one_out
from rlhf.algorithms.masks import length_mask

GENERATOR = torch.Generator().manual_seed(0)
LENGTHS = [6, 1, 4]
MASK = length_mask(torch.tensor(LENGTHS), 6)
REWARDS = torch.randn(3, 6, generator=GENERATOR, dtype=torch.float64)
VALUES = torch.randn(3, 6, generator=GENERATOR, dtype=torch.float64)


def by_definition(gamma: float, lam: float) -> Tensor:
    """Sum over all pairs (t, k), row by row, as the paper writes it."""
    result = torch.zeros(3, 6, dtype=torch.float64)
    for b, length in enumerate(LENGTHS):
        values = [*VALUES[b, :length].tolist(), 0.0]
        deltas = [REWARDS[b, t].item() + gamma * values[t + 1] - values[t] for t in range(length)]
        for t in range(length):
            result[b, t] = sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length))
    return result


def test_gae_by_hand():
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.5, 0.5]])
    advantages, returns = gae(rewards, values, torch.ones(1, 3).bool(), gamma=0.9, lam=0.5)
    # deltas: .9*.5-1 = -.55, .9*.5-.5 = -.05, 1-.5 = .5; then A_t = delta_t + .45 * A_(t+1)
    torch.testing.assert_close(advantages, torch.tensor([[-0.47125, 0.175, 0.5]]), rtol=0, atol=1e-6)
    torch.testing.assert_close(returns, torch.tensor([[0.52875, 0.675, 1.0]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_gae_is_the_quadratic_definition(gamma: float, lam: float):
    advantages, _ = gae(REWARDS, VALUES, MASK, gamma=gamma, lam=lam)
    torch.testing.assert_close(advantages, by_definition(gamma, lam), rtol=0, atol=1e-10)


def test_lambda_one_gives_returns_and_lambda_zero_the_td_error():
    rewards, values = REWARDS[:1], VALUES[:1]
    everything = torch.ones(1, 6).bool()
    advantages, returns = gae(rewards, values, everything, gamma=1.0, lam=1.0)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(returns, to_go, rtol=0, atol=1e-12)
    torch.testing.assert_close(advantages, to_go - values, rtol=0, atol=1e-12)
    advantages, _ = gae(rewards, values, everything, gamma=0.9, lam=0.0)
    following = torch.cat([values[:, 1:], torch.zeros(1, 1)], dim=1)
    torch.testing.assert_close(advantages, rewards + 0.9 * following - values, rtol=0, atol=1e-12)


def test_a_score_at_the_end_is_the_target_of_every_position():
    rewards = torch.zeros(1, 4)
    rewards[0, 2] = 2.5
    mask = length_mask(torch.tensor([3]), 4)
    _, returns = gae(rewards, torch.randn(1, 4, generator=GENERATOR), mask, gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, torch.tensor([[2.5, 2.5, 2.5, 0.0]]), rtol=0, atol=1e-6)


def test_padding_and_what_it_holds_change_no_advantage():
    advantages, returns = gae(REWARDS, VALUES, MASK, gamma=0.9, lam=0.8)
    junk = torch.full((3, 3), torch.nan, dtype=torch.float64)
    padded, padded_returns = gae(
        torch.cat([torch.where(MASK, REWARDS, torch.nan), junk], dim=1),
        torch.cat([torch.where(MASK, VALUES, torch.nan), junk], dim=1),
        length_mask(torch.tensor(LENGTHS), 9),
        gamma=0.9,
        lam=0.8,
    )
    assert torch.equal(padded[:, :6], advantages)
    assert torch.equal(padded_returns[:, :6], returns)
    assert padded[:, 6:].abs().max() == 0


def test_explained_variance_is_one_when_right_and_zero_for_a_constant():
    assert explained_variance(VALUES, VALUES, MASK).item() == pytest.approx(1.0, abs=1e-9)
    constant = torch.full_like(VALUES, 3.0)
    assert explained_variance(constant, VALUES, MASK).item() == pytest.approx(0.0, abs=1e-6)


def test_leave_one_out_by_hand():
    # Means of the others: (2 + 6) / 2 = 4, (1 + 6) / 2 = 3.5, (1 + 2) / 2 = 1.5.
    found = leave_one_out(torch.tensor([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]]))
    expected = torch.tensor([[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_baseline_of_a_response_does_not_depend_on_its_own_reward():
    rewards = torch.tensor([[0.3, -1.0, 2.0, 0.5]])
    raised = rewards + torch.tensor([[7.0, 0.0, 0.0, 0.0]])
    assert (leave_one_out(raised) - leave_one_out(rewards))[0, 0].item() == pytest.approx(7.0, abs=1e-5)


def test_group_relative_by_hand():
    # Means 2 and 5; deviations (with n - 1) of the groups 2 and 0, of all six sqrt(80 / 15).
    rewards = torch.tensor([[0.0, 2.0, 4.0], [5.0, 5.0, 5.0]])
    deviations = torch.tensor([[-2.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    mean = 21 / 6
    batch = (sum((value - mean) ** 2 for value in (0, 2, 4, 5, 5, 5)) / 5) ** 0.5
    for scale, divisor in (("group", 2.0001), ("batch", batch + 1e-4), ("none", 1.0)):
        torch.testing.assert_close(
            group_relative(rewards, scale=scale), deviations / divisor, rtol=1e-6, atol=1e-6
        )
