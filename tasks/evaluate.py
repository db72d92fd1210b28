"""Stages `evaluate-...`: every policy answers the same held-out prompts and is judged against the SFT policy."""

from schemas.config import DataConfig, EvaluateConfig
from schemas.pipeline import PipelineRun
from schemas.record import Interval, Record
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import EvaluationResult, PolicyResult
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


def judge(
    run: PipelineRun,
    sft: ModelRef,
    reward: ModelRef,
    held_out: DatasetRef,
    policies: dict[str, PolicyResult],
    data: DataConfig,
    config: EvaluateConfig,
) -> tuple[EvaluationResult, dict[str, EvaluationResult]]:
    """Evaluate the SFT policy, and every policy against it."""
    baseline = evaluate_policy.named("evaluate-sft")(
        run, run.called("sft"), sft, sft, reward, held_out, None, None, data, config
    )
    judged = {
        name: evaluate_policy.named(f"evaluate-{name}")(
            run,
            run.called(name),
            policy.model,
            sft,
            reward,
            held_out,
            baseline.samples,
            policy.rollouts,
            data,
            config,
        )
        for name, policy in policies.items()
    }
    return baseline, judged


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
