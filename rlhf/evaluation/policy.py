"""One policy on the held-out prompts: sample, score, measure KL, judge against the baseline prompt by prompt."""

import polars as pl
import torch
from transformers import PreTrainedTokenizerFast

from rlhf.data.helpdesk.world import World
from rlhf.evaluation import wording
from rlhf.evaluation.intervals import bootstrap_mean, wilson
from rlhf.evaluation.judges import with_gold
from rlhf.evaluation.length_controlled import length_controlled
from rlhf.evaluation.pieces import pieces
from rlhf.evaluation.subject import Subject
from rlhf.models.precision import autocast
from rlhf.models.rendering import Renderer
from rlhf.models.reward import RewardModel
from schemas.config import EvaluateConfig
from schemas.evaluation import SHOWN_SAMPLES, CurvePoint, PolicyEvaluation
from schemas.record import Interval


def respond(
    policy: Subject,
    reference: Subject,
    reward: RewardModel | None,
    prompts: pl.DataFrame,
    *,
    world: World | None,
    seed: int,
    reward_tokenizer: PreTrainedTokenizerFast | None = None,
) -> pl.DataFrame:
    """Sample and judge one response per held-out prompt (table `samples`); the same seed picks the same prompts.

    `kl` is the k1 estimate of one response: the sum over its tokens of policy minus reference log-probability
    at the sampling temperature, in nats, with what choosing the best of n adds. `score` reads the very ids that were
    sampled, unless the reward model has a tokenizer of its own (`reward_tokenizer`). `pieces` and `piece_kl` say which words it stems from, for the first rows.
    """
    config = policy.config
    chosen = prompts.sample(min(config.num_prompts, prompts.height), seed=seed)
    prompt_ids = policy.encode(chosen["prompt"].to_list())
    completions = policy.answer(chosen["prompt"].to_list(), prompt_ids, seed=seed)
    response_ids = [completion.ids for completion in completions]
    scores: list[float | None] = [None] * len(completions)
    if reward is not None:
        renderer = Renderer(policy.tokenizer, reward_tokenizer or policy.tokenizer)
        finished = [completion.finished for completion in completions]
        read = renderer.sequences(chosen["prompt"].to_list(), prompt_ids, response_ids, finished)
        with torch.no_grad(), autocast(policy.precision):
            scores = reward.normalised_scores(read, batch_size=config.batch_size).tolist()
    if policy is reference:  # against itself it is zero by definition
        logprobs = [sum(completion.logprobs) for completion in completions]
        kls = [0.0] * len(completions)
        told: list[tuple[list[str], list[float]]] = [([], [])] * len(completions)
    else:
        policy.require_same_tokens(reference)
        ours, theirs = (
            subject.token_logprobs(prompt_ids, response_ids, temperature=config.temperature)
            for subject in (policy, reference)
        )
        logprobs = [float(tokens_T.sum()) for tokens_T in ours]
        kls = [
            own - float(other_T.sum()) + policy.choice_kl
            for own, other_T in zip(logprobs, theirs, strict=True)
        ]
        told = [
            pieces(policy.tokenizer, ids, (own_T - other_T).tolist()) if row < SHOWN_SAMPLES else ([], [])
            for row, (ids, own_T, other_T) in enumerate(zip(response_ids, ours, theirs, strict=True))
        ]
    samples = chosen.select("prompt_id", "prompt").with_columns(
        pl.Series("response", [policy.text(completion) for completion in completions], dtype=pl.String),
        pl.Series("tokens", [len(ids) for ids in response_ids], dtype=pl.Int64),
        pl.Series("finished", [completion.finished for completion in completions], dtype=pl.Boolean),
        pl.Series("logprob", logprobs, dtype=pl.Float64),
        pl.Series("score", scores, dtype=pl.Float64),
        pl.Series("kl", kls, dtype=pl.Float64),
        pl.Series("pieces", [texts for texts, _ in told], dtype=pl.List(pl.String)),
        pl.Series("piece_kl", [nats for _, nats in told], dtype=pl.List(pl.Float64)),
    )
    return with_gold(samples, world)


def evaluate(
    name: str,
    samples: pl.DataFrame,
    outcomes: pl.DataFrame | None,
    config: EvaluateConfig,
    *,
    seed: int,
) -> PolicyEvaluation:
    """Summarise a policy's samples and the verdicts on them (see `judges.verdicts`); None for the baseline itself."""
    known = samples["gold"].null_count() == 0
    judged = outcomes if outcomes is not None and outcomes.height else None

    def mean(values: pl.Series) -> Interval:
        return bootstrap_mean(
            values.to_numpy(), confidence=config.confidence, samples=config.bootstrap_samples, seed=seed
        )

    def share(column: str) -> Interval:
        return wilson(int(samples[column].sum()), samples.height, config.confidence)

    win_rate = None if judged is None else mean(judged["outcome"])
    return PolicyEvaluation(
        name=name,
        win_rate=win_rate and win_rate.value,
        win_rate_low=win_rate and win_rate.low,
        win_rate_high=win_rate and win_rate.high,
        length_controlled=None
        if judged is None
        else length_controlled(
            judged["outcome"].to_numpy(),
            judged["characters"].to_numpy(),
            judged["characters_baseline"].to_numpy(),
            confidence=config.confidence,
            samples=config.bootstrap_samples,
            seed=seed,
        ),
        kl=_mean(samples, "kl"),
        kl_per_token=_mean(samples, "kl") / max(_mean(samples, "tokens"), 1e-9),
        score=mean(samples["score"]) if samples["score"].null_count() == 0 else None,
        gold=mean(samples["gold"]) if known else None,
        right=share("right") if known else None,
        rude=share("rude") if known else None,
        length=_mean(samples, "tokens"),
        eos_rate=_mean(samples, "finished"),
        num_prompts=samples.height if judged is None else judged.height,
        wording=wording.describe(samples),
    )


def _mean(frame: pl.DataFrame, column: str) -> float:
    return float(frame[column].to_numpy().mean())


def annotate_curve(rollouts: pl.DataFrame, world: World | None) -> tuple[CurvePoint, ...]:
    """Average KL, score and gold of each iteration of an online aligner (table `rollouts`)."""
    points = (
        with_gold(rollouts, world).group_by("iteration").agg(pl.mean("kl", "score", "gold")).sort("iteration")
    )
    return tuple(CurvePoint(**point) for point in points.iter_rows(named=True))
