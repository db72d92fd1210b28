"""Rejection sampling, also called RAFT: learn from the best of one's own responses (Dong et al. 2023).

    repeat:
        draw n responses to each of some prompts from the policy         best_of_n.Chooser.draw
        keep the one that the reward model scores highest                Group.best
        supervised fine-tuning on what was kept                          sft.learn
    return the policy

Deviations from the paper: the best of n is kept for every prompt, of which none is left out; nothing but the score
chooses (their KL penalty is off in their experiments, too); winners of earlier rounds are not trained on again.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rlhf.data.chat import decode_response, encode_prompt
from rlhf.models.best_of_n import Chooser, Group
from rlhf.models.loading import load_policy
from rlhf.models.precision import Precision, apply, autocast
from rlhf.models.sampling import response_logprobs
from rlhf.training import processes
from rlhf.training.rollout import generator_for, prompt_rows
from rlhf.training.sft import IGNORED, Example, learn
from rlhf.training.step import OnStep, StepMetrics
from rlhf.training.trl_adapter import save
from schemas.config import RejectionSamplingConfig
from schemas.errors import DataRejected


@dataclass(frozen=True, slots=True)
class RejectionFit:
    """What rejection sampling leaves besides the policy on disk."""

    rollouts: pl.DataFrame
    """Every response that was sampled, round by round (table `rollouts`)."""
    metrics: dict[str, float]
    """Of the last round: `score` of all responses, `best_score` of those that were kept, and the training's own."""


def fit(
    sft: Path,
    reward: Path,
    prompts: pl.DataFrame,
    config: RejectionSamplingConfig,
    *,
    seed: int,
    precision: Precision,
    on_step: OnStep,
    out: Path,
) -> RejectionFit:
    """Train the SFT policy on the best of its own responses, round after round, and save it to `out`."""
    if prompts.is_empty():
        raise DataRejected(
            "The table of prompts is empty; rejection sampling needs at least one to respond to."
        )
    apply(precision)
    policy, tokenizer = load_policy(sft, device=str(processes.join(precision.device, whole=config.method)))
    reference = copy.deepcopy(policy).requires_grad_(False)
    chooser = Chooser.beside(
        policy, tokenizer, reward, n=config.n, scoring=config.ensemble, device=precision.device
    )
    tables: list[pl.DataFrame] = []
    metrics: dict[str, float] = {}
    for turn in range(config.rounds):
        rows = prompt_rows(prompts.height, iteration=turn, batch_size=config.num_prompts, seed=seed)
        asked = prompts[rows]
        ids = [encode_prompt(tokenizer, messages) for messages in asked["prompt"].to_list()]
        groups = replace(chooser, policy=policy).draw(
            asked["prompt"].to_list(),
            ids,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            batch_size=config.sample_batch_size,
            precision=precision,
            generator=generator_for(seed, "sample", turn),
        )
        kls = _kl(reference, ids, groups, config, precision, tokenizer) if turn else None
        tables.append(_table(tokenizer, asked, groups, kls, turn))
        drawn = sum(len(one.ids) for group in groups for one in group.completions)
        policy, learnt = learn(
            policy,
            tokenizer,
            winners(ids, groups, max_length=config.max_length),
            config,
            seed=seed + turn,
            precision=precision,
            on_step=_in_round(on_step, turn, config, drawn),
        )
        metrics = learnt | _describe(groups, kls)
    save(policy, tokenizer, out)
    return RejectionFit(rollouts=pl.concat(tables), metrics=metrics)


def winners(prompt_ids: Sequence[list[int]], groups: Sequence[Group], *, max_length: int) -> list[Example]:
    """Return (ids, labels) of each prompt with its best response, cut to `max_length`; the prompt's labels are ignored."""
    examples: list[Example] = []
    for prompt, group in zip(prompt_ids, groups, strict=True):
        best = group.completions[group.best].ids
        if len(prompt) < max_length:
            ids, labels = prompt + best, [IGNORED] * len(prompt) + best
            examples.append((ids[:max_length], labels[:max_length]))
    if not examples:
        raise DataRejected(
            f"None of the {len(prompt_ids)} prompts is shorter than max_length={max_length} tokens; raise max_length."
        )
    return examples


def _kl(
    reference: PreTrainedModel,
    prompt_ids: Sequence[list[int]],
    groups: Sequence[Group],
    config: RejectionSamplingConfig,
    precision: Precision,
    tokenizer: PreTrainedTokenizerFast,
) -> list[list[float]]:
    """Return each response's k1 estimate of the KL from the SFT policy, in nats; before the first training it is 0."""
    pad_id = tokenizer.pad_token_id
    assert isinstance(pad_id, int)  # load_policy checks it
    with autocast(precision):
        theirs = response_logprobs(
            reference,
            [ids for ids in prompt_ids for _ in range(config.n)],
            [one.ids for group in groups for one in group.completions],
            temperature=config.temperature,
            pad_id=pad_id,
            batch_size=config.sample_batch_size,
        )
    sums = iter([float(logprobs_T.sum()) for logprobs_T in theirs])
    return [[sum(one.logprobs) - next(sums) for one in group.completions] for group in groups]


def _table(
    tokenizer: PreTrainedTokenizerFast,
    asked: pl.DataFrame,
    groups: Sequence[Group],
    kls: list[list[float]] | None,
    turn: int,
) -> pl.DataFrame:
    """Return the round's responses as rows of the table `rollouts`."""
    drawn = [one for group in groups for one in group.completions]
    each = len(groups[0].completions)
    flat = [0.0] * len(drawn) if kls is None else [value for group in kls for value in group]
    return (
        asked.select(pl.col("prompt_id", "prompt").repeat_by(each))
        .explode("prompt_id", "prompt")
        .with_columns(
            pl.lit(turn).cast(pl.Int64).alias("iteration"),
            pl.Series("response", [decode_response(tokenizer, one.ids) for one in drawn], pl.String),
            pl.Series("score", [score for group in groups for score in group.scores], pl.Float64),
            pl.Series("kl", flat, pl.Float64),
            pl.Series("finished", [one.finished for one in drawn], pl.Boolean),
        )
        .select("iteration", "prompt_id", "prompt", "response", "score", "kl", "finished")
    )


def _describe(groups: Sequence[Group], kls: list[list[float]] | None) -> dict[str, float]:
    scores = [score for group in groups for score in group.scores]
    lengths = [len(group.completions[group.best].ids) for group in groups]
    flat = [value for group in kls or [] for value in group]
    return {
        "score": sum(scores) / len(scores),
        "best_score": sum(max(group.scores) for group in groups) / len(groups),
        "best_length": sum(lengths) / len(groups),
        "kl": sum(flat) / len(flat) if flat else 0.0,
    }


def _in_round(on_step: OnStep, turn: int, config: RejectionSamplingConfig, drawn: int) -> OnStep:
    """Count the steps of all rounds through, and put a round's samples down to its first step."""

    def told(step: StepMetrics) -> None:
        on_step(
            replace(
                step,
                step=turn * config.steps + step.step,
                total=config.rounds * config.steps,
                sampled_tokens=drawn if step.step == 1 else 0,
            )
        )

    return told
