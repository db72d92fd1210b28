"""Mistakes with rewards, values and losses that PPO implementations have made; each test is named for one."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlhf.algorithms.advantages import gae
from rlhf.algorithms.masks import whiten
from rlhf.algorithms.rollouts import Rollout
from rlhf.models.precision import Precision
from rlhf.models.reward import RewardModel
from rlhf.training.actors import load_actors
from rlhf.training.experience import describe, learn_from
from rlhf.training.rollout import collect
from schemas.config import PPOConfig

FP32 = Precision(threads=1, dtype="fp32")
PROMPTS = [[{"role": "user", "content": "hi " * number}] for number in range(1, 9)]
CONFIG = PPOConfig(batch_size=8, minibatch_size=4, epochs=1, max_new_tokens=6)


@pytest.fixture
def rollout(folders: tuple[Path, Path]) -> Rollout:
    """Sampled by a policy that has moved away from its reference; ragged."""
    actors = load_actors(*folders, lora=None, seed=0, device="cpu")
    with torch.no_grad():
        actors.policy.get_input_embeddings().weight.mul_(1.1)
    sampled, _ = collect(actors, PROMPTS, CONFIG, precision=FP32, seed=0, iteration=0)
    assert not sampled.mask_BT.all()
    return sampled


def test_a_constant_in_the_reward_models_bias_changes_no_advantage(
    folders: tuple[Path, Path], tmp_path: Path
):
    reward = RewardModel.load(folders[1])
    sequences = [[5, 6, 7], [8, 9]]
    expected = reward.normalised_scores(sequences)
    # The same model 4 points higher throughout, normalised anew on the same responses: mean + 4.
    with torch.no_grad():
        reward.head.bias = torch.nn.Parameter(torch.full((1,), 4.0))
    reward.set_normalisation(mean=reward.score_mean + 4.0, std=reward.score_std)
    torch.testing.assert_close(reward.normalised_scores(sequences), expected, rtol=0, atol=1e-5)


def test_whitening_is_over_the_batch_and_not_over_each_minibatch(rollout: Rollout):
    experience = learn_from(rollout, CONFIG, kl_coef=0.1)
    raw, _ = gae(experience.rewards_BT, rollout.values_BT, rollout.mask_BT, gamma=1.0, lam=0.95)
    torch.testing.assert_close(experience.advantages_BT, whiten(raw, rollout.mask_BT), rtol=0, atol=1e-6)
    real = experience.advantages_BT[rollout.mask_BT]
    assert real.mean().abs() < 1e-5
    assert real.var(correction=0).item() == pytest.approx(1.0, abs=1e-3)
    assert experience.advantages_BT[:4][rollout.mask_BT[:4]].mean().abs() > 1e-4


def test_nothing_that_is_logged_counts_padding(rollout: Rollout):
    def filled(junk: float) -> dict[str, float]:
        def fill(tensor: Tensor) -> Tensor:
            return torch.where(rollout.mask_BT, tensor, junk)

        polluted = replace(
            rollout,
            old_logprobs_BT=fill(rollout.old_logprobs_BT),
            ref_logprobs_BT=fill(rollout.ref_logprobs_BT * 1.5),
            values_BT=fill(rollout.values_BT),
            entropy_BT=fill(rollout.entropy_BT),
        )
        return describe(learn_from(polluted, CONFIG, kl_coef=0.1))

    clean = filled(0.0)
    assert clean["entropy"] >= 0
    assert all(math.isfinite(value) for value in clean.values())
    assert filled(-1e4) == clean


def test_one_step_of_adam_is_the_formula_with_epsilon_outside_the_root():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0)
    weight.grad = torch.tensor([3e-8])  # of epsilon's size, so that its place shows
    optimizer.step()
    # After one step both bias corrections cancel: m / (sqrt(v) + eps) = g / (|g| + 1e-8)
    assert weight.item() == pytest.approx(1.0 - 0.1 * 3e-8 / (3e-8 + 1e-8), abs=1e-6)
