"""Proximal policy optimisation from a learned reward model (Ouyang et al. 2022; Schulman et al. 2017).

    repeat:
        sample responses from the policy                                    rollout.collect
        score them: reward model, reference, critic                         rollout.collect
        reward per token: -kl_coef * KL, plus the score at the last token   rewards.token_rewards
        advantages by GAE, whitened over the batch                          advantages.gae, masks.whiten
        several epochs of clipped policy and value losses                   losses.*_loss

Deviations from InstructGPT, each on purpose:
 1. No pre-training mix (PPO-ptx): the tether to the SFT policy is the KL penalty alone.
 2. Scores are normalised by the reward model's stored mean and standard deviation over SFT responses, then
    clipped; a response that no stop id ends loses a penalty. KL terms are neither clipped nor clamped.
 3. The critic has the size of the reward model, starts as it, head and normalisation included, and has a
    learning rate of its own.
 4. Losses are divided by the token count of the whole minibatch: every token weighs the same, and
    micro-batches change nothing.
 5. Several epochs per rollout, cut short once the policy's KL from the one that sampled passes a target.
 6. Dropout is off throughout, the adapters' included.
 7. The pad id is left out of every distribution; sampling and scoring share it and the temperature.
 8. AdamW without weight decay, linear warm-up, then a constant rate; both gradients are clipped by norm.

Shapes: B responses, T response tokens.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import nn

from rlhf.algorithms.losses import policy_loss, value_loss
from rlhf.models.batches import score_tokens
from rlhf.models.loading import merge, save_model
from rlhf.models.precision import Precision, apply, autocast
from rlhf.training.actors import Actors, load_actors
from rlhf.training.checkpoint import Trained, load_checkpoint, save_checkpoint
from rlhf.training.experience import Experience, describe, learn_from, table
from rlhf.training.rollout import Minibatch, collect, micro_batch, prompt_rows
from rlhf.training.step import OnStep, StepMetrics
from schemas.config import PPOConfig
from schemas.errors import DataRejected, TrainingDiverged


@dataclass(frozen=True, slots=True)
class PPOFit:
    """What a run of PPO leaves besides the policy on disk."""

    rollouts: pl.DataFrame
    """Every response that was sampled, iteration by iteration (table `rollouts`)."""
    metrics: dict[str, float]
    """Of the last iteration."""


def fit(
    sft: Path,
    reward: Path,
    prompts: pl.DataFrame,
    config: PPOConfig,
    *,
    seed: int,
    precision: Precision,
    on_step: OnStep,
    out: Path,
    checkpoints: Path | None = None,
) -> PPOFit:
    """Align the SFT policy with the reward model and save it, adapters merged, to `out`.

    With `checkpoints`, the state after each iteration is kept there; the same call then goes on where it was
    stopped, and on a CPU ends with the same bits.
    """
    if prompts.is_empty():
        raise DataRejected("The table of prompts is empty; PPO needs at least one prompt to respond to.")
    apply(precision)
    actors = load_actors(sft, reward, lora=config.lora, seed=seed, device=precision.device)
    trained = {
        "policy": _trained(actors.policy, config.learning_rate),
        "critic": _trained(actors.critic, config.critic_learning_rate),
    }
    settings = f"{config.model_dump_json()} seed={seed} {precision}"
    resumed = (
        load_checkpoint(checkpoints, trained=trained, settings=settings) if checkpoints is not None else None
    )
    done, rollouts, metrics = resumed or (0, None, {})
    for iteration in range(done, config.iterations):
        sampled, step = _iterate(
            actors, trained, prompts, config, precision=precision, seed=seed, iteration=iteration
        )
        rollouts = sampled if rollouts is None else pl.concat([rollouts, sampled])
        metrics = step.metrics
        on_step(step)
        if checkpoints is not None:
            save_checkpoint(
                checkpoints,
                iteration=iteration + 1,
                trained=trained,
                rollouts=rollouts,
                metrics=metrics,
                settings=settings,
            )
    assert rollouts is not None  # there is at least one iteration
    save_model(merge(actors.policy), actors.tokenizer, out)
    return PPOFit(rollouts=rollouts, metrics=metrics)


def _iterate(
    actors: Actors,
    trained: Mapping[str, Trained],
    prompts: pl.DataFrame,
    config: PPOConfig,
    *,
    precision: Precision,
    seed: int,
    iteration: int,
) -> tuple[pl.DataFrame, StepMetrics]:
    """Sample a rollout and update on it; return its rows of the table `rollouts` and what was measured."""
    rows = prompt_rows(prompts.height, iteration=iteration, batch_size=config.batch_size, seed=seed)
    asked = prompts[rows]
    rollout, plan = collect(
        actors, asked["prompt"].to_list(), config, precision=precision, seed=seed, iteration=iteration
    )
    experience = learn_from(rollout, config)
    metrics = describe(experience) | update(
        actors, trained, experience, plan, config, precision=precision, iteration=iteration
    )
    return table(actors.tokenizer, asked, experience, iteration), StepMetrics(
        step=iteration + 1,
        total=config.iterations,
        metrics=metrics,
        tokens=int(rollout.mask_BT.sum()),
    )


@dataclass(slots=True)
class Tally:
    """Sums over the micro-batches of one optimizer step."""

    policy_loss: float = 0.0
    value_loss: float = 0.0
    clipped: float = 0.0
    value_clipped: float = 0.0
    kl: float = 0.0
    ratio_deviation: float = 0.0


def update(
    actors: Actors,
    trained: Mapping[str, Trained],
    experience: Experience,
    plan: list[list[Minibatch]],
    config: PPOConfig,
    *,
    precision: Precision,
    iteration: int,
) -> dict[str, float]:
    """Pass over the rollout as planned, one optimizer step per minibatch, until the KL target is passed."""
    steps: list[dict[str, float]] = []
    for number, minibatch in enumerate(minibatch for epoch in plan for minibatch in epoch):
        num_tokens = int(experience.rollout.mask_BT[[row for rows in minibatch for row in rows]].sum())
        tally = Tally()
        for rows in minibatch:
            _accumulate_gradients(actors, experience, rows, config, precision, num_tokens, tally)
        if not math.isfinite(tally.policy_loss + tally.value_loss):
            raise TrainingDiverged(
                f"PPO iteration {iteration + 1}: policy loss {tally.policy_loss}, value loss "
                f"{tally.value_loss}; wanted finite numbers. Lower learning_rate and critic_learning_rate, "
                "or raise kl_coef."
            )
        approx_kl = tally.kl / num_tokens
        if config.target_kl is not None and approx_kl > config.target_kl:
            for part in trained.values():
                part.optimizer.zero_grad(set_to_none=True)
            break
        planned = len(plan) * len(plan[0])
        warmup = config.warmup_iterations * planned
        scale = min(1.0, (iteration * planned + number + 1) / warmup) if warmup else 1.0
        norms = {
            f"{name}_grad_norm": _step(part, scale, config.max_grad_norm) for name, part in trained.items()
        }
        steps.append(
            {
                "policy_loss": tally.policy_loss,
                "value_loss": tally.value_loss,
                "approx_kl": approx_kl,
                "clip_fraction": tally.clipped / num_tokens,
                "value_clip_fraction": tally.value_clipped / num_tokens,
                "ratio_deviation": tally.ratio_deviation,
                **norms,
            }
        )
    # There is at least one step: the first minibatch's ratio is 1, hence its KL 0.
    metrics = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    return metrics | {
        "ratio_deviation": max(step["ratio_deviation"] for step in steps),
        "first_ratio_deviation": steps[0]["ratio_deviation"],
        "optimizer_steps": float(len(steps)),
    }


def _accumulate_gradients(
    actors: Actors,
    experience: Experience,
    rows: list[int],
    config: PPOConfig,
    precision: Precision,
    num_tokens: int,
    tally: Tally,
) -> None:
    """Add one micro-batch's gradients: sums over its tokens, divided by the whole minibatch's count."""
    rollout = experience.rollout
    batch = micro_batch(rollout.prompts, rollout.responses, rows, actors)
    width = batch.mask_BT.shape[1]
    with autocast(precision):
        logprobs_BT = score_tokens(actors.policy, batch, temperature=config.temperature, pad_id=actors.pad_id)
        values_BT = actors.critic(batch)
    policy = policy_loss(
        logprobs_BT,
        rollout.old_logprobs_BT[rows, :width],
        experience.advantages_BT[rows, :width],
        batch.mask_BT,
        clip_range=config.clip_range,
        num_tokens=num_tokens,
    )
    value = value_loss(
        values_BT,
        rollout.values_BT[rows, :width],
        experience.returns_BT[rows, :width],
        batch.mask_BT,
        clip_range=config.value_clip_range,
        num_tokens=num_tokens,
    )
    (policy.loss + config.value_coef * value.loss).backward()
    tally.policy_loss += policy.loss.item()
    tally.value_loss += value.loss.item()
    tally.clipped += policy.clipped.item()
    tally.value_clipped += value.clipped.item()
    tally.kl += policy.kl.item()
    tally.ratio_deviation = max(tally.ratio_deviation, policy.ratio_deviation.item())


def _trained(module: nn.Module, learning_rate: float) -> Trained:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return Trained(module, torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0), learning_rate)


def _step(part: Trained, scale: float, max_grad_norm: float) -> float:
    """Clip, step at the scaled learning rate, forget the gradient, and return its norm before clipping."""
    group = part.optimizer.param_groups[0]
    norm = nn.utils.clip_grad_norm_(group["params"], max_grad_norm)
    group["lr"] = part.learning_rate * scale
    part.optimizer.step()
    part.optimizer.zero_grad(set_to_none=True)
    return norm.item()
