"""One policy on the held-out prompts: sample, score, measure KL, judge against SFT prompt by prompt."""

from pathlib import Path

import polars as pl
import torch

from rlhf.data.chat import decode_response, encode_prompt, stop_ids
from rlhf.data.helpdesk.world import World
from rlhf.evaluation.intervals import bootstrap_mean, wilson
from rlhf.evaluation.judges import with_gold
from rlhf.models.loading import load_policy
from rlhf.models.precision import Precision, autocast
from rlhf.models.rendering import Renderer
from rlhf.models.reward import RewardModel
from rlhf.models.sampling import response_logprobs, sample
from schemas.config import EvaluateConfig
from schemas.errors import ConfigError, DataRejected
from schemas.evaluation import CurvePoint, PolicyEvaluation
from schemas.record import Interval


def respond(
    policy: Path,
    reference: Path,
    reward: Path,
    prompts: pl.DataFrame,
    config: EvaluateConfig,
    *,
    world: World | None,
    seed: int,
    precision: Precision,
) -> pl.DataFrame:
    """Sample and judge one response per held-out prompt (table `samples`); the same seed picks the same prompts.

    `kl` is the k1 estimate of one response: the sum over its tokens of policy minus reference log-probability
    at the sampling temperature, in nats. `score` reads the very ids that were sampled, never re-encoded text.
    """
    chosen = prompts.sample(min(config.num_prompts, prompts.height), seed=seed)
    model, tokenizer = load_policy(policy, device=precision.device)
    pad_id = int(tokenizer.pad_token_id)
    prompt_ids = [encode_prompt(tokenizer, messages) for messages in chosen["prompt"].to_list()]
    with torch.no_grad(), autocast(precision):
        completions = sample(
            model,
            prompt_ids,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            stop=stop_ids(model, tokenizer),
            pad_id=pad_id,
            batch_size=config.batch_size,
            generator=torch.Generator().manual_seed(seed),
        )
        response_ids = [completion.ids for completion in completions]

        def totals(path: Path) -> list[float]:
            logprobs = response_logprobs(
                model if path == policy else load_policy(path, device=precision.device)[0],
                prompt_ids,
                response_ids,
                temperature=config.temperature,
                pad_id=pad_id,
                batch_size=config.batch_size,
            )
            return [float(tokens_T.sum()) for tokens_T in logprobs]

        scores = RewardModel.load(reward, device=precision.device).normalised_scores(
            Renderer.between(tokenizer, reward).sequences(
                chosen["prompt"].to_list(),
                prompt_ids,
                response_ids,
                [completion.finished for completion in completions],
            ),
            batch_size=config.batch_size,
        )
        # The reference against itself is zero by definition.
        kls = (
            [0.0] * len(completions)
            if policy == reference
            else [ours - theirs for ours, theirs in zip(totals(policy), totals(reference), strict=True)]
        )
    samples = chosen.select("prompt_id", "prompt").with_columns(
        pl.Series("response", [decode_response(tokenizer, ids) for ids in response_ids], dtype=pl.String),
        pl.Series("tokens", [len(ids) for ids in response_ids], dtype=pl.Int64),
        pl.Series("finished", [completion.finished for completion in completions], dtype=pl.Boolean),
        pl.Series("score", scores.tolist(), dtype=pl.Float64),
        pl.Series("kl", kls, dtype=pl.Float64),
    )
    return with_gold(samples, world)


def evaluate(
    name: str,
    samples: pl.DataFrame,
    baseline: pl.DataFrame | None,
    config: EvaluateConfig,
    *,
    seed: int,
) -> PolicyEvaluation:
    """Summarise a policy's samples and how often the judge prefers them, by prompt, to the baseline's."""
    known = samples["gold"].null_count() == 0
    if config.judge == "utility" and not known:
        raise ConfigError(
            "evaluate.judge=utility, but this data has no hidden utility; set evaluate.judge=reward"
        )
    win_rate = None if baseline is None else _win_rate(samples, baseline, config, seed)

    def mean(column: str) -> Interval:
        return bootstrap_mean(
            samples[column].to_numpy(),
            confidence=config.confidence,
            samples=config.bootstrap_samples,
            seed=seed,
        )

    def share(column: str) -> Interval:
        return wilson(int(samples[column].sum()), samples.height, config.confidence)

    return PolicyEvaluation(
        name=name,
        win_rate=win_rate and win_rate.value,
        win_rate_low=win_rate and win_rate.low,
        win_rate_high=win_rate and win_rate.high,
        kl=_mean(samples, "kl"),
        score=mean("score"),
        gold=mean("gold") if known else None,
        right=share("right") if known else None,
        rude=share("rude") if known else None,
        length=_mean(samples, "tokens"),
        eos_rate=_mean(samples, "finished"),
        num_prompts=samples.height,
    )


def _win_rate(samples: pl.DataFrame, baseline: pl.DataFrame, config: EvaluateConfig, seed: int) -> Interval:
    verdict = "gold" if config.judge == "utility" else "score"
    pairs = samples.join(baseline, on="prompt_id", validate="1:1", suffix="_baseline")
    if not pairs.height == samples.height == baseline.height:
        raise DataRejected(
            f"{samples.height} samples and {baseline.height} of the baseline share {pairs.height} prompts; "
            "wanted the same prompts on both sides: sample both with the same seed and evaluate section"
        )
    ours, theirs = pairs[verdict].to_numpy(), pairs[f"{verdict}_baseline"].to_numpy()
    outcomes = (ours > theirs) + 0.5 * (ours == theirs)
    return bootstrap_mean(outcomes, confidence=config.confidence, samples=config.bootstrap_samples, seed=seed)


def _mean(frame: pl.DataFrame, column: str) -> float:
    return float(frame[column].to_numpy().mean())


def annotate_curve(rollouts: pl.DataFrame, world: World | None) -> tuple[CurvePoint, ...]:
    """Average KL, score and gold of each iteration of an online aligner (table `rollouts`)."""
    points = (
        with_gold(rollouts, world).group_by("iteration").agg(pl.mean("kl", "score", "gold")).sort("iteration")
    )
    return tuple(CurvePoint(**point) for point in points.iter_rows(named=True))
