"""Stages `evaluate-...`: every policy answers the same held-out prompts and is judged against the SFT policy."""

from schemas.config import DataConfig, EvaluateConfig
from schemas.record import Interval, Record
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import EvaluationResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("evaluate")
def evaluate_policy(
    work: StageWork,
    name: str,
    policy: ModelRef,
    sft: ModelRef,
    reward: ModelRef,
    held_out: DatasetRef,
    baseline: DatasetRef | None,
    rollouts: DatasetRef | None,
    data: DataConfig,
    config: EvaluateConfig,
) -> EvaluationResult:
    """Sample, score and judge one policy; `baseline` holds the SFT policy's samples on the same prompts."""
    from rlhf.data.helpdesk.world import World
    from rlhf.evaluation import policy as evaluation

    world = World(work.run.seed) if data.source == "helpdesk" else None
    samples = evaluation.respond(
        work.fetch(policy),
        work.fetch(sft),
        work.fetch(reward),
        work.read(held_out).head(config.num_prompts),
        config,
        world=world,
        seed=work.run.seed,
        precision=work.precision,
    )
    found = evaluation.evaluate(
        name, samples, work.read(baseline) if baseline else None, config, seed=work.run.seed
    )
    work.tracked.log_table(
        {column: samples[column].to_list() for column in ("prompt_id", "response", "tokens", "score", "kl")},
        "samples.json",
    )
    return EvaluationResult(
        evaluation=found,
        samples=work.publish_table(samples, "samples"),
        curve=evaluation.annotate_curve(work.read(rollouts), world) if rollouts else (),
        metrics=numbers(found),
    )


def numbers(found: Record) -> dict[str, float]:
    """Return an evaluation as flat metrics; unknown ones are left out."""
    flat: dict[str, float] = {}
    for name in type(found).model_fields:
        value = getattr(found, name)
        if isinstance(value, Interval):
            flat |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        elif isinstance(value, Record):
            flat |= numbers(value)
        elif isinstance(value, float):
            flat[name] = value
    return flat
