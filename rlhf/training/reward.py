"""The reward model: which of the responses to a prompt people prefer (Ouyang et al. 2022, eq. 1).

The loop is our own and not TRL's, whose reward trainer knows single pairs without weights, one head, and reads the score
where the ids say that the padding begins.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import torch
from transformers import PreTrainedTokenizerFast

from rlhf.data.chat import encode_prompt, encode_response
from rlhf.data.pairs import encode_pairs
from rlhf.models.loading import attach_lora, load_tokenizer, merge
from rlhf.models.precision import Precision, apply, autocast
from rlhf.models.reward import RewardModel
from rlhf.training import processes
from rlhf.training.comparisons import Comparison, from_pairs, from_rankings
from rlhf.training.reward_steps import train
from rlhf.training.step import OnStep, StepMetrics
from schemas.config.reward import RewardConfig
from schemas.errors import DataRejected, TrainingDiverged

_CALIBRATION_RESPONSES = 2_048
"""SFT responses that fix the scale of the scores: enough to know the mean to 0.02 standard deviations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardFit:
    """The scale of the scores, and the last steps' mean metrics."""

    score_mean: float
    score_std: float
    metrics: dict[str, float]


def fit(
    start: Path,
    preferences: pl.DataFrame,
    rankings: pl.DataFrame | None,
    candidates: pl.DataFrame,
    config: RewardConfig,
    *,
    rater_weights: Mapping[str, float],
    seed: int,
    precision: Precision,
    on_step: OnStep,
    out: Path,
) -> RewardFit:
    """Train a reward model on the trunk and tokenizer of the model in `start`, and save it to `out`.

    `rankings` are those that the preferences were derived from, if they were; `rater_weights` says what each rater's count.
    `candidates` are SFT responses: their scores become mean 0 and standard deviation 1.
    """
    apply(precision)
    device = str(processes.join(precision.device, whole="the reward model"))
    tokenizer = load_tokenizer(start)
    comparisons, equal = _examples(tokenizer, preferences, rankings, rater_weights, config)
    history: list[dict[str, float]] = []

    def told(step: StepMetrics) -> None:
        history.append(step.metrics)
        if processes.is_first():
            on_step(step)

    reward = RewardModel.from_policy(start, seed=seed, device=device, heads=_heads(config))
    reward = _train(reward, comparisons, config, precision=precision, seed=seed, on_step=told)
    with autocast(precision):
        responses = _encode_candidates(tokenizer, candidates, config.max_length, seed)
        correlation = _set_scale(reward, responses, config.batch_size)
    if processes.is_first():
        reward.save(out)
        tokenizer.save_pretrained(out)
    processes.wait()
    metrics = _last(history) | {"length_correlation": correlation, "equal_after_cut": float(equal)}
    return RewardFit(score_mean=reward.score_mean, score_std=reward.score_std, metrics=metrics)


def _examples(
    tokenizer: PreTrainedTokenizerFast,
    preferences: pl.DataFrame,
    rankings: pl.DataFrame | None,
    rater_weights: Mapping[str, float],
    config: RewardConfig,
) -> tuple[list[Comparison], int]:
    """Return what is trained on, and how many pairs the cut has made equal and thus useless."""
    if config.loss == "plackett_luce" and rankings is not None:
        known = rankings.filter(pl.col("prompt_id").is_in(preferences["prompt_id"].unique().implode()))
        weights = rater_weights if config.weighted else {}
        found = from_rankings(tokenizer, known, weights, max_length=config.max_length)
        if not found:
            raise DataRejected(
                f"None of the {known.height} rankings tells two responses apart within max_length={config.max_length} "
                "tokens and comes from a rater who is better than chance; wanted some. Set reward.weighted=false, or "
                "collect more rankings."
            )
        return found, 0
    if not config.weighted:
        preferences = preferences.with_columns(weight=1.0)
    pairs = encode_pairs(tokenizer, preferences, max_length=config.max_length)
    return from_pairs(pairs), preferences.height - len(pairs)


def _heads(config: RewardConfig) -> int:
    return config.ensemble.size if config.ensemble and config.ensemble.kind == "heads" else 1


def _train(
    reward: RewardModel,
    comparisons: Sequence[Comparison],
    config: RewardConfig,
    *,
    precision: Precision,
    seed: int,
    on_step: OnStep,
) -> RewardModel:
    """Train all weights, adapters that are merged afterwards, or one adapter after the other."""
    with (
        torch.random.fork_rng()
    ):  # adapters draw their first weights, and dropout its masks, from the global generator
        torch.manual_seed(seed)
        if config.ensemble and config.ensemble.kind == "adapters":
            assert config.lora is not None, "the schema refuses adapters without lora"
            size = config.ensemble.size
            for member in range(size):
                reward.add_adapter(config.lora)
                for step in train(reward, comparisons, config, precision=precision, seed=seed + member):
                    on_step(replace(step, step=member * step.total + step.step, total=size * step.total))
            return reward
        trained = attach_lora(reward.model, config.lora, "SEQ_CLS") if config.lora else reward.model
        for step in train(reward, comparisons, config, precision=precision, seed=seed):
            on_step(step)
    return RewardModel(merge(trained))


def _last(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return each metric's mean over the last tenth of the steps."""
    last = history[-math.ceil(len(history) / 10) :]
    return {name: sum(step[name] for step in last) / len(last) for name in last[0]}


def _encode_candidates(
    tokenizer: PreTrainedTokenizerFast, candidates: pl.DataFrame, max_length: int, seed: int
) -> list[list[int]]:
    flat = candidates.select("prompt", "responses", "finished").explode("responses", "finished")
    if flat.is_empty():
        raise DataRejected(
            "The table of candidates is empty; the reward model needs SFT responses to set its scale."
        )
    flat = flat.sample(min(len(flat), _CALIBRATION_RESPONSES), seed=seed)
    return [
        (encode_prompt(tokenizer, prompt) + encode_response(tokenizer, text, finished=finished))[:max_length]
        for prompt, text, finished in flat.iter_rows()
    ]


def _set_scale(reward: RewardModel, responses: list[list[int]], batch_size: int) -> float:
    """Give these responses scores of mean 0 and deviation 1; return the correlation of score and length."""
    raw_BM = reward.member_scores(responses, batch_size=4 * batch_size)
    mean_M, std_M = raw_BM.mean(dim=0), raw_BM.std(dim=0)
    if not bool((std_M > 0).all()):
        raise TrainingDiverged(
            f"All {len(responses)} SFT responses have the score {float(mean_M[0]):.4g}; wanted scores that differ. "
            "Train longer, or sample more varied responses."
        )
    if reward.members == 1:
        reward.set_normalisation(mean=float(mean_M), std=float(std_M))
    else:
        reward.set_normalisation(mean=mean_M.tolist(), std=std_M.tolist())
    scores_B = ((raw_BM - mean_M) / std_M).mean(dim=1)
    lengths_B = torch.tensor([float(len(ids)) for ids in responses])
    return float(torch.corrcoef(torch.stack([scores_B, lengths_B]))[0, 1])
