"""Proximal policy optimisation from a learned reward model (Ouyang et al. 2022; Schulman et al. 2017).

    repeat:
        sample responses from the policy                                    rollout.collect
        score them: reward model, reference, critic                         rollout.collect
        reward per token: -kl_coef * KL, plus the score at the last token   rewards.token_rewards
        advantages by GAE, whitened over the batch                          advantages.gae, masks.whiten
        several epochs of clipped policy and value losses                   objective, losses.*_loss
        now and then: does it still agree with held-out preferences?        held_out, guard.alarms
    return the policy that agreed best

Deviations from InstructGPT, each on purpose:
 1. The pre-training mix (PPO-ptx) is off unless the recipe asks: the tether is the KL penalty alone.
 2. Scores are normalised by the reward model's stored mean and standard deviation over SFT responses, then
    clipped; a response that no stop id ends loses a penalty. KL terms are neither clipped nor clamped.
 3. The critic has the size of the reward model, starts as it, head and normalisation included, and has a
    learning rate of its own. With `shared_trunk` it is a head on the policy, which begins at 0.
 4. Losses are divided by the token count of the whole minibatch: every token weighs the same, and
    micro-batches change nothing.
 5. Several epochs per rollout, cut short once the policy's KL from the one that sampled passes a target.
 6. Dropout is off throughout, the adapters' included.
 7. The pad id is left out of every distribution; sampling and scoring share it and the temperature.
 8. AdamW without weight decay, linear warm-up, then a constant rate; both gradients are clipped by norm.
 9. Off unless the recipe asks: KL in the loss or with an adapted coefficient, length penalty, entropy bonus,
    dual clip, critic warm-up, truncated importance weights for a sampler of other arithmetic.

RLOO and GRPO are the same loop without a critic: each prompt has several responses, which are compared with each other
(`experience.learn_from`, `objective`).

Shapes: B responses, T response tokens.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.models.loading import merge, save_model
from rlhf.models.precision import Precision, apply
from rlhf.models.sampling import Sampler, sample
from rlhf.training import processes
from rlhf.training.actors import Actors, load_actors
from rlhf.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from rlhf.training.experience import Experience, describe, learn_from, table
from rlhf.training.guard import alarms, next_coefficient, stops
from rlhf.training.held_out import HeldOut
from rlhf.training.objective import Tally, accumulate_gradients
from rlhf.training.ptx import Mix
from rlhf.training.rollout import Minibatch, collect, prompt_rows, tokens_of
from rlhf.training.step import OnStep, StepMetrics
from rlhf.training.trained import Trained
from schemas.config import GroupSection, OnlineSection, PPOConfig
from schemas.errors import DataRejected, TrainingDiverged

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PPOFit:
    """What a run of PPO leaves besides the policy on disk."""

    rollouts: pl.DataFrame
    """Every response that was sampled, iteration by iteration (table `rollouts`)."""
    metrics: dict[str, float]
    """Of the last iteration, and `returned_iteration`: after how many the policy was as it is returned."""


def fit(
    sft: Path,
    reward: Path,
    prompts: pl.DataFrame,
    config: OnlineSection,
    *,
    seed: int,
    precision: Precision,
    on_step: OnStep,
    out: Path,
    preferences: pl.DataFrame | None = None,
    mixed: pl.DataFrame | None = None,
    checkpoints: Path | None = None,
    sampler: Sampler = sample,
) -> PPOFit:
    """Align the SFT policy with the reward model and save it, adapters merged, to `out`.

    `preferences` are pairs that the reward model was not trained on: the guard watches the agreement with them,
    and the policy that agreed best is the one that is saved. Without them it is the last one. `mixed` are the rows
    that `config.ptx` mixes in.
    With `checkpoints`, the state is kept there; the same call then goes on where it was stopped, tells `on_step`
    of the finished iterations first, and on a CPU ends with the same bits and the same curve.
    """
    if prompts.is_empty():
        raise DataRejected("The table of prompts is empty; wanted at least one prompt to respond to.")
    apply(precision)
    run = _load(
        sft, reward, prompts, config, seed=seed, precision=precision, sampler=sampler, preferences=preferences, mixed=mixed
    )  # fmt: skip
    policy, settings = run.trained["policy"], f"{config.model_dump_json()} seed={seed} {precision}"
    progress = Progress(
        kl_coef=config.kl_coef, best=None if run.held_out is None else run.held_out.start(policy)
    )
    if checkpoints is not None:
        progress = load_checkpoint(checkpoints, trained=run.trained, settings=settings) or progress
    for step in progress.curve if processes.is_first() else ():
        on_step(step)
    for iteration in range(len(progress.curve), config.iterations):
        if progress.stopped:
            break
        progress = _iterate(run, progress, iteration)
        if processes.is_first():
            on_step(progress.curve[-1])
        last = progress.stopped or iteration + 1 == config.iterations
        due = last or (iteration + 1) % config.checkpoint_every == 0
        if checkpoints is not None and due and processes.is_first():
            save_checkpoint(checkpoints, progress=progress, trained=run.trained, settings=settings)
    assert progress.rollouts is not None  # there is at least one iteration
    returned = len(progress.curve)
    if progress.best is not None and config.guard.keep == "best":
        returned = progress.best.iteration
        policy.set_weights(progress.best.weights)
    if processes.is_first():
        actors = run.actors
        save_model(merge(actors.policy, onto=sft if config.load_in_4bit else None), actors.tokenizer, out)
    processes.wait()
    metrics = progress.curve[-1].metrics | {"returned_iteration": float(returned)}
    return PPOFit(rollouts=progress.rollouts, metrics=metrics)


@dataclass(frozen=True, slots=True)
class _Run:
    """What all iterations share."""

    actors: Actors
    trained: Mapping[str, Trained]
    prompts: pl.DataFrame
    config: OnlineSection
    seed: int
    precision: Precision
    held_out: HeldOut | None
    mix: Mix | None


def _load(
    sft: Path,
    reward: Path,
    prompts: pl.DataFrame,
    config: OnlineSection,
    *,
    seed: int,
    precision: Precision,
    sampler: Sampler,
    preferences: pl.DataFrame | None,
    mixed: pl.DataFrame | None,
) -> _Run:
    """Load the models, give an optimizer to those that learn, and encode what is looked at beside the rollouts."""
    actors = load_actors(
        sft,
        reward,
        lora=config.lora,
        seed=seed,
        device=str(processes.join(precision.device, whole=config.method)),
        with_critic=isinstance(config, PPOConfig),
        shared_trunk=isinstance(config, PPOConfig) and config.shared_trunk,
        scoring=config.ensemble,
        sampler=sampler,
        four_bit=config.load_in_4bit,
        recompute=config.gradient_checkpointing,
    )
    trained = {"policy": Trained.by_adamw(actors.policy, config.learning_rate)}
    if isinstance(config, PPOConfig) and actors.critic is not None:
        trained["critic"] = Trained.by_adamw(actors.critic, config.critic_learning_rate)
    held_out = None if preferences is None else HeldOut(actors, preferences, config, precision)
    mix = Mix.of(config, actors.tokenizer, mixed, seed=seed)
    return _Run(actors, trained, prompts, config, seed, precision, held_out, mix)


def _iterate(run: _Run, progress: Progress, iteration: int) -> Progress:
    """Sample a rollout, score it, update on it, and look at what has become of the policy."""
    actors, config, precision = run.actors, run.config, run.precision
    size = config.group_size if isinstance(config, GroupSection) else 1
    rows = prompt_rows(
        run.prompts.height, iteration=iteration, batch_size=config.batch_size // size, seed=run.seed
    )
    asked = run.prompts[[row for row in rows for _ in range(size)]]
    rollout, plan = collect(
        actors, asked["prompt"].to_list(), config, precision=precision, seed=run.seed, iteration=iteration
    )
    experience = learn_from(rollout, config, kl_coef=progress.kl_coef)
    metrics = describe(experience) | update(
        actors, run.trained, experience, plan, config,
        kl_coef=progress.kl_coef, precision=precision, iteration=iteration, mix=run.mix,
    )  # fmt: skip
    first = progress.curve[0].metrics if progress.curve else metrics
    best = progress.best
    if run.held_out is not None and best is not None:
        ends = iteration + 1 == config.iterations or stops(alarms(metrics, first, config.guard))
        if ends or (iteration + 1) % config.guard.evaluate_every == 0:
            measured, best = run.held_out.evaluate(run.trained["policy"], best, iteration + 1)
            metrics |= measured
    raised = alarms(metrics, first, config.guard)
    for alarm in raised:
        logger.warning("%s iteration %d: %s (%s)", config.name, iteration + 1, alarm.message, alarm.action)
    steps = int(metrics["optimizer_steps"])
    step = StepMetrics(
        step=iteration + 1,
        total=config.iterations,
        metrics=metrics | {"kl_coef": progress.kl_coef, "alarms": float(len(raised))},
        tokens=int(rollout.mask_BT.sum()),
        sampled_tokens=int(rollout.mask_BT.sum()),
        gradient_tokens=tokens_of(rollout, plan, steps) + round(steps * metrics.get("ptx_tokens", 0.0)),
    )
    sampled = table(actors.tokenizer, asked, experience, iteration)
    return Progress(
        kl_coef=next_coefficient(progress.kl_coef, metrics["kl"], raised, config),
        curve=(*progress.curve, step),
        rollouts=sampled if progress.rollouts is None else progress.rollouts.vstack(sampled),
        stopped=stops(raised),
        best=best,
    )


def update(
    actors: Actors,
    trained: Mapping[str, Trained],
    experience: Experience,
    plan: list[list[Minibatch]],
    config: OnlineSection,
    *,
    kl_coef: float,
    precision: Precision,
    iteration: int,
    mix: Mix | None = None,
) -> dict[str, float]:
    """Pass over the rollout as planned, one optimizer step per minibatch, until the KL target is passed."""
    critic_warmup = config.critic_warmup_iterations if isinstance(config, PPOConfig) else 0
    critic_only = iteration < critic_warmup
    steps: list[dict[str, float]] = []
    for number, minibatch in enumerate(minibatch for epoch in plan for minibatch in epoch):
        num_tokens = int(experience.rollout.mask_BT[[row for rows in minibatch for row in rows]].sum())
        tally = Tally(actors.device)
        for part in trained.values():
            part.forget_gradient()
        for rows in processes.dealt(minibatch):
            accumulate_gradients(
                actors,
                experience,
                rows,
                config,
                kl_coef=kl_coef,
                precision=precision,
                num_tokens=num_tokens,
                tally=tally,
                critic_only=critic_only,
            )
        measured = tally.metrics(num_tokens)
        losses = {name: value for name, value in measured.items() if name.endswith("_loss")}
        if not all(map(math.isfinite, losses.values())):
            raise TrainingDiverged(
                f"{config.method} iteration {iteration + 1}: {losses}; wanted finite numbers. Lower the learning rates, or "
                "raise kl_coef."
            )
        if config.target_kl is not None and measured["approx_kl"] > config.target_kl:
            break
        planned = len(plan) * len(plan[0])
        if mix is not None and not critic_only:
            measured |= mix.accumulate(actors, precision, step=iteration * planned + number)
        for name, part in trained.items():
            # The policy waits until the critic has learnt what to expect; its own warm-up begins then.
            waits = critic_warmup if name == "policy" else 0
            if iteration >= waits:
                processes.add_up_gradients(part.module)
                done = (iteration - waits) * planned + number + 1
                scale = min(1.0, done / max(1, config.warmup_iterations * planned))
                measured[f"{name}_grad_norm"] = part.step(scale=scale, max_grad_norm=config.max_grad_norm)
        steps.append(measured)
    # There is at least one step: the first minibatch's ratio is 1, hence its KL 0.
    metrics = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    return metrics | {
        "ratio_deviation": max(step["ratio_deviation"] for step in steps),
        "first_ratio_deviation": steps[0]["ratio_deviation"],
        "optimizer_steps": float(len(steps)),
    }
