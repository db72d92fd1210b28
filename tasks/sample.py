"""Stages `sample` and `select`: several responses to each prompt, and which prompts raters are asked about."""

from collections.abc import Sequence
from typing import NamedTuple

from schemas.config import LabellingConfig, SampleConfig
from schemas.pipeline import PipelineRun, Round
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import CandidatesResult
from tasks.stage import stage
from tasks.work import StageWork


class Sampled(NamedTuple):
    """What a round asks raters about."""

    candidates: DatasetRef
    of_sft: DatasetRef
    """The SFT policy's own responses, which set the scale of every round's reward model."""


def sample(
    run: PipelineRun,
    sft: ModelRef,
    before: Sequence[Round],
    prompts: DatasetRef,
    config: SampleConfig,
    labelling: LabellingConfig,
) -> Sampled:
    """Sample what will be ranked: from the SFT policy first, from the latest policies in every later round."""
    if not before:
        first = sample_candidates(run, sft, prompts, config).candidates
        return Sampled(first, first)
    chooses = labelling.select == "disagreement"
    found = sample_latest(
        run,
        {name: policy.model for name, policy in before[-1].policies.items()},
        prompts,
        {one.run.called("candidates"): one.candidates for one in before},
        config,
        labelling.pool if chooses else 1,
    ).candidates
    if chooses:
        found = select_prompts(run, before[-1].reward, found, config).candidates
    return Sampled(found, before[0].candidates)


@stage("sample")
def sample_candidates(
    work: StageWork, policy: ModelRef, prompts: DatasetRef, config: SampleConfig
) -> CandidatesResult:
    """Sample the responses that raters will rank."""
    from rlhf.feedback import candidates

    frame = candidates.sample(
        work.fetch(policy),
        work.read(prompts).head(config.num_prompts),
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
    )
    return CandidatesResult(
        candidates=work.publish_table(frame, "candidates"), metrics=candidates.describe(frame)
    )


@stage("sample")
def sample_latest(
    work: StageWork,
    policies: dict[str, ModelRef],
    prompts: DatasetRef,
    asked: dict[str, DatasetRef],
    config: SampleConfig,
    pool: int,
) -> CandidatesResult:
    """Sample the latest policies in turn on prompts that were not asked yet, `pool` for each that will be ranked."""
    from rlhf.feedback import candidates, selection

    wanted = selection.next_prompts(
        work.read(prompts), [work.read(table) for table in asked.values()], pool * config.num_prompts
    )
    frame = candidates.sample_in_turn(
        [work.fetch(policy) for policy in policies.values()],
        wanted,
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
    )
    return CandidatesResult(
        candidates=work.publish_table(frame, "candidates"), metrics=candidates.describe(frame)
    )


@stage("select")
def select_prompts(
    work: StageWork, reward: ModelRef, pool: DatasetRef, config: SampleConfig
) -> CandidatesResult:
    """Keep the prompts on whose responses the members of the reward ensemble disagree most."""
    from rlhf.feedback import candidates, selection

    frame = work.read(pool)
    doubts = selection.doubts(
        work.fetch(reward), frame, batch_size=config.batch_size, precision=work.precision
    )
    chosen = selection.most_doubtful(frame, doubts, config.num_prompts)
    kept = sorted(doubts, reverse=True)[: chosen.height]
    return CandidatesResult(
        candidates=work.publish_table(chosen, "candidates"),
        metrics={
            **candidates.describe(chosen),
            "doubt_of_pool": sum(doubts) / len(doubts),
            "doubt_of_chosen": sum(kept) / len(kept),
        },
    )
