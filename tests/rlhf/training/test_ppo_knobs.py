"""What a recipe may add to PPO: each knob does what it says, and nothing while it is off."""

from pathlib import Path

import polars as pl
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from rlhf.models.critic import ValueHead
from rlhf.models.precision import Precision
from rlhf.training import ppo
from rlhf.training.actors import Actors, load_actors
from rlhf.training.experience import Experience, learn_from
from rlhf.training.objective import Tally, accumulate_gradients
from rlhf.training.rollout import collect, minibatches
from rlhf.training.step import StepMetrics
from rlhf.training.trained import Trained
from schemas.config import LoraConfig, PPOConfig
from schemas.config.aligners.online import KLConfig

FP32 = Precision(threads=1, dtype="fp32")
MESSAGES = [[{"role": "user", "content": "hi " * number}] for number in range(1, 9)]
PROMPTS = pl.DataFrame({"prompt_id": [str(row) for row in range(8)], "prompt": MESSAGES})
CONFIG = PPOConfig(
    iterations=2, batch_size=8, minibatch_size=8, epochs=1, max_new_tokens=6, warmup_iterations=0,
    learning_rate=1e-3, critic_learning_rate=1e-3, target_kl=None,
)  # fmt: skip


def changed(**values: object) -> PPOConfig:
    return PPOConfig.model_validate({**CONFIG.model_dump(), **values})


def run(folders: tuple[Path, Path], out: Path, config: PPOConfig) -> list[StepMetrics]:
    heard: list[StepMetrics] = []
    ppo.fit(*folders, PROMPTS, config, seed=0, precision=FP32, on_step=heard.append, out=out)
    return heard


def moved(folders: tuple[Path, Path], config: PPOConfig) -> tuple[Actors, Experience]:
    """A rollout of a policy that has left its reference."""
    actors = load_actors(*folders, lora=None, seed=0, device="cpu", shared_trunk=config.shared_trunk)
    with torch.no_grad():
        actors.policy.get_input_embeddings().weight.mul_(1.1)
    rollout, _ = collect(actors, MESSAGES, config, precision=FP32, seed=0, iteration=0)
    return actors, learn_from(rollout, config, kl_coef=config.kl_coef)


def gradient(
    actors: Actors, experience: Experience, config: PPOConfig, *, critic_only: bool = False
) -> Tensor:
    accumulate_gradients(
        actors, experience, list(range(8)), config, kl_coef=config.kl_coef, precision=FP32,
        num_tokens=int(experience.rollout.mask_BT.sum()), tally=Tally(torch.device("cpu")), critic_only=critic_only,
    )  # fmt: skip
    found = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for parameter in actors.policy.parameters()
    ]
    for part in (actors.policy, actors.critic):
        part.zero_grad(set_to_none=True)
    return torch.cat([part.flatten() for part in found])


@pytest.mark.parametrize(
    ("place", "estimator", "why"),
    [
        ("reward", "k2", "biased"),
        ("reward", "k3", "biased"),
        ("reward", "k3+", "biased"),
        ("loss", "k1", "is zero"),
        ("loss", "k3", r"KL\(reference"),
    ],
)
def test_an_estimator_whose_gradient_is_not_that_of_the_kl_is_refused(place: str, estimator: str, why: str):
    with pytest.raises(ValidationError, match=why):
        KLConfig.model_validate({"place": place, "estimator": estimator})


@pytest.mark.parametrize("estimator", ["k2", "k3+"])
def test_kl_in_the_loss_leaves_the_reward_alone_and_adds_its_own_gradient(
    folders: tuple[Path, Path], estimator: str
):
    config = changed(kl={"place": "loss", "estimator": estimator}, kl_coef=0.5)
    actors, experience = moved(folders, config)
    assert torch.equal(
        experience.rewards_BT.sum(1), experience.rewards_BT.amax(1) + experience.rewards_BT.amin(1)
    )
    with_kl = gradient(actors, experience, config)
    without = gradient(actors, experience, config.model_copy(update={"kl_coef": 0.0}))
    assert (with_kl - without).abs().max() > 1e-4
    twice = gradient(actors, experience, config.model_copy(update={"kl_coef": 1.0}))
    torch.testing.assert_close(twice - without, 2 * (with_kl - without), rtol=0, atol=1e-5)


def test_the_adapted_coefficient_follows_the_kl_and_is_logged(folders: tuple[Path, Path], tmp_path: Path):
    curve = run(folders, tmp_path, changed(kl={"target": 5.0, "horizon": 16}, kl_coef=0.4, iterations=3))
    # The KL begins at 0, far below the target: error -0.2, times 8 responses over 16.
    assert [step.metrics["kl_coef"] for step in curve][:2] == [0.4, pytest.approx(0.4 * 0.9)]
    assert run(folders, tmp_path, changed(kl_coef=0.4))[-1].metrics["kl_coef"] == 0.4


def test_the_entropy_bonus_flattens_the_distribution(folders: tuple[Path, Path], tmp_path: Path):
    entropies = [
        run(folders, tmp_path, changed(entropy_coef=coefficient, learning_rate=3e-3, iterations=3))[
            -1
        ].metrics["entropy"]
        for coefficient in (0.0, 3.0)
    ]
    assert entropies[1] > entropies[0] + 0.05


def test_while_the_critic_warms_up_the_policy_stands_still(folders: tuple[Path, Path], tmp_path: Path):
    curve = run(folders, tmp_path, changed(critic_warmup_iterations=2, iterations=4))
    assert [step.metrics["kl"] == 0 for step in curve] == [True, True, True, False]
    assert [("policy_grad_norm" in step.metrics) for step in curve] == [False, False, True, True]
    assert curve[0].metrics["value_loss"] > 0


def test_importance_weights_are_one_where_sampler_and_update_agree(folders: tuple[Path, Path]):
    config = changed(importance_cap=2.0)
    actors, experience = moved(folders, config)
    weights, mask = experience.weights_BT, experience.rollout.mask_BT
    assert weights is not None
    torch.testing.assert_close(weights, mask.float(), rtol=0, atol=1e-4)
    weighed = gradient(actors, experience, config)
    _, plain = moved(folders, CONFIG)
    torch.testing.assert_close(weighed, gradient(actors, plain, CONFIG), rtol=0, atol=1e-4)


def test_micro_batches_keep_to_the_token_budget_and_lose_no_row():
    lengths = [5, 30, 4, 2, 8, 17, 3, 6]
    plan = minibatches(
        lengths, minibatch_size=8, micro_batch_size=None, micro_batch_tokens=24,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    # Sorted: 2 3 4 5 | 6 8 | 17 | 30; four times 5 fit, five times 6 do not; what is too long goes alone.
    assert [[lengths[row] for row in rows] for rows in plan[0]] == [[2, 3, 4, 5], [6, 8], [17], [30]]
    with pytest.raises(ValidationError, match="set one of them"):
        changed(micro_batch_tokens=10, micro_batch_size=4)


@pytest.mark.parametrize("shared", [False, True])
def test_the_token_budget_changes_no_gradient(folders: tuple[Path, Path], shared: bool):
    config = changed(shared_trunk=shared)
    actors, experience = moved(folders, config)
    whole = gradient(actors, experience, config)
    lengths = [len(ids) for ids in experience.rollout.responses]
    plan = minibatches(
        lengths, minibatch_size=8, micro_batch_size=None, micro_batch_tokens=8,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert len(plan[0]) > 2
    total = torch.zeros_like(whole)
    for rows in plan[0]:
        accumulate_gradients(
            actors, experience, rows, config, kl_coef=config.kl_coef, precision=FP32,
            num_tokens=int(experience.rollout.mask_BT.sum()), tally=Tally(torch.device("cpu")),
        )  # fmt: skip
    total = torch.cat([parameter.grad.flatten() for parameter in actors.policy.parameters()])
    torch.testing.assert_close(total, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4.0)])
def test_a_shared_trunk_learns_values_and_policy_in_one_pass(
    folders: tuple[Path, Path], tmp_path: Path, lora: LoraConfig | None
):
    config = changed(shared_trunk=True, lora=lora, epochs=3)
    actors = load_actors(*folders, lora=lora, seed=0, device="cpu", shared_trunk=True)
    assert isinstance(actors.critic, ValueHead)
    rollout, plan = collect(actors, MESSAGES, config, precision=FP32, seed=0, iteration=0)
    assert not rollout.values_BT.any()  # 0 is the mean of the normalised score
    experience = learn_from(rollout, config, kl_coef=0.1)
    trained = {
        "policy": Trained.by_adamw(actors.policy, 1e-3),
        "critic": Trained.by_adamw(actors.critic, 1e-2),
    }
    metrics = ppo.update(actors, trained, experience, plan, config, kl_coef=0.1, precision=FP32, iteration=0)
    assert metrics["first_ratio_deviation"] == 0.0
    again, _ = collect(actors, MESSAGES, config, precision=FP32, seed=0, iteration=0)
    assert again.values_BT.abs().max() > 1e-3
    assert run(folders, tmp_path, config)[0].metrics["kl"] == 0.0
