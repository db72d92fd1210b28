"""Rewards, values and advantages, against their definitions."""

import pytest
import torch

from rlhf.conformance import truth
from rlhf.conformance.backend import Backend, Models
from rlhf.conformance.models import QUESTIONS

MASK = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
RANDOM = torch.Generator()


def _random(seed: int) -> torch.Tensor:
    return torch.randn(MASK.shape, generator=RANDOM.manual_seed(seed))


@pytest.mark.item(29, trainer="ppo")
def test_token_rewards_sum_to_score_less_kl(backend: Backend) -> None:
    """And the score stands on the last token, not on the first of the padding."""
    scores, kl = torch.tensor([1.0, -2.0, 0.5]), _random(0)
    found = backend.token_rewards(scores, kl, MASK, kl_coef=0.3, score_clip=5.0)
    expected = scores - 0.3 * (kl * MASK).sum(1)
    torch.testing.assert_close(found.sum(1), expected, rtol=0, atol=1e-5)
    bare = backend.token_rewards(scores, kl, MASK, kl_coef=0.0, score_clip=5.0)
    assert [row.nonzero().flatten().tolist() for row in bare] == [[3], [1], [0]]


@pytest.mark.item(30, trainer="ppo")
def test_only_the_score_is_clipped(backend: Backend) -> None:
    """A KL of a thousand nats costs a thousand times its coefficient."""
    scores, kl = torch.full((3,), 1e3), 100 * _random(1)
    found = backend.token_rewards(scores, kl, MASK, kl_coef=1.0, score_clip=2.0)
    expected = 2.0 - (kl * MASK).sum(1)
    torch.testing.assert_close(found.sum(1), expected, rtol=0, atol=1e-3)


@pytest.mark.item(31, 32, trainer="ppo")
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_advantages_agree_with_their_definition(backend: Backend, gamma: float, lam: float) -> None:
    """A_t is the sum over k of (gamma lam)^k delta_(t+k); after the last token nothing comes, whatever the padding holds."""
    rewards, values = _random(2), _random(3)
    values[~MASK] = 9.0
    found, returns = backend.advantages(rewards, values, MASK, gamma=gamma, lam=lam)
    for row, length in enumerate(MASK.sum(1).tolist()):
        following = [*values[row, 1:length].tolist(), 0.0]
        deltas = [
            float(rewards[row, t]) + gamma * following[t] - float(values[row, t]) for t in range(length)
        ]
        for t in range(length):
            expected = sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length))
            assert float(found[row, t]) == pytest.approx(expected, abs=1e-5)
            assert float(returns[row, t]) == pytest.approx(expected + float(values[row, t]), abs=1e-5)


@pytest.mark.item(33, trainer="ppo")
def test_whitening_counts_real_tokens_only(backend: Backend) -> None:
    """Mean 0 and variance 1 over them."""
    values = _random(4)
    clean = backend.whiten(values, MASK)
    assert clean[MASK].mean().abs() < 1e-5
    assert clean[MASK].var(correction=0).item() == pytest.approx(1.0, abs=0.2)  # divided by n or by n - 1
    polluted = backend.whiten(torch.where(MASK, values, 1e4), MASK)
    torch.testing.assert_close(polluted[MASK], clean[MASK], rtol=0, atol=0)


@pytest.mark.item(37)
def test_the_critic_begins_as_the_reward_model(backend: Backend, models: Models, online: str) -> None:
    """Its value of a state is the score of what has been said so far."""
    values, states = backend.first_values(online, models, QUESTIONS)
    assert values.std() > 1e-2
    torch.testing.assert_close(values, truth.scores(models.reward, states), rtol=0, atol=1e-4)


@pytest.mark.item(39)
def test_a_constant_changes_no_group_advantage(backend: Backend, models: Models, online: str) -> None:
    """The reward model's scale has no zero."""
    rewards = torch.tensor([[1.0, 2.0, 4.0, 9.0], [0.0, 0.5, 0.5, -3.0]])
    found = backend.group_advantages(online, models, rewards)
    torch.testing.assert_close(
        backend.group_advantages(online, models, rewards + 7.0), found, rtol=0, atol=1e-5
    )


@pytest.mark.item(40)
def test_group_advantages_are_those_of_their_formula(backend: Backend, models: Models, online: str) -> None:
    """Of RLOO k / (k - 1) times the distance from the mean; of GRPO that distance in standard deviations."""
    rewards = torch.tensor([[1.0, 2.0, 4.0, 9.0], [0.0, 0.5, 0.5, -3.0]])
    distance = rewards - rewards.mean(1, keepdim=True)
    found = backend.group_advantages(online, models, rewards)
    torch.testing.assert_close(found.sum(1), torch.zeros(2), rtol=0, atol=1e-4)
    if online.startswith("rloo"):
        torch.testing.assert_close(found, 4 / 3 * distance, rtol=0, atol=1e-5)
    if online.startswith("grpo"):
        torch.testing.assert_close(found, distance / rewards.std(1, keepdim=True), rtol=0, atol=1e-3)
    equal = backend.group_advantages(online, models, torch.full((2, 4), 3.0))
    torch.testing.assert_close(equal, torch.zeros(2, 4), rtol=0, atol=1e-5)
