"""Stages `evaluate-...`: every policy answers the same held-out prompts and is judged against the SFT policy."""

import hashlib
from typing import TYPE_CHECKING

import polars as pl

from schemas.config import DataConfig, EvaluateConfig
from schemas.evaluation import Forgetting, Safety
from schemas.pipeline import PipelineRun, Trial
from schemas.record import Interval, Record
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import EvaluationResult, HeldOut, PolicyResult
from tasks.judge import choose, verdicts_digest
from tasks.stage import stage
from tasks.work import StageWork

if TYPE_CHECKING:
    from rlhf.data.helpdesk.world import World
    from rlhf.evaluation.subject import Subject


def _outside(policy: ModelRef, baseline: DatasetRef | None, config: EvaluateConfig, **_: object) -> str:
    """Digest what lies outside the store: people's verdicts, and the files of lm-eval tasks."""
    verdicts = verdicts_digest(policy, baseline, config)
    if config.lm_eval is None:
        return verdicts
    from rlhf.evaluation.harness import task_files

    contents = b"".join(file.read_bytes() for file in task_files(config.lm_eval))
    return verdicts + hashlib.sha256(contents).hexdigest()


@stage("evaluate", fingerprint=_outside)
def evaluate_policy(
    work: StageWork,
    name: str,
    policy: ModelRef,
    sft: ModelRef,
    reward: ModelRef | None,
    judge: ModelRef | None,
    held_out: HeldOut,
    baseline: DatasetRef | None,
    rollouts: DatasetRef | None,
    data: DataConfig,
    config: EvaluateConfig,
) -> EvaluationResult:
    """Sample, score and judge one policy; `baseline` holds the SFT policy's samples on the same prompts."""
    from rlhf.data.helpdesk.world import World
    from rlhf.evaluation import policy as evaluation
    from rlhf.evaluation.harness import run_tasks
    from rlhf.evaluation.judges import verdicts
    from rlhf.evaluation.llm_judge import LLMJudge
    from rlhf.evaluation.subject import Subject
    from rlhf.models.loading import load_tokenizer
    from rlhf.models.reward import RewardModel

    seed, world = work.run.seed, World(work.run.seed) if data.source == "helpdesk" else None
    subject = Subject(work.fetch(policy), config, work.precision)
    reference = subject if policy.digest == sft.digest else Subject(work.fetch(sft), config, work.precision)
    scorer = RewardModel.load(work.fetch(reward), device=work.precision.device) if reward else None
    tokenizer = load_tokenizer(work.fetch(reward)) if reward else None
    prompts = work.read(held_out.prompts).head(config.num_prompts)
    samples = evaluation.respond(
        subject, reference, scorer, prompts, world=world, seed=seed, reward_tokenizer=tokenizer
    )
    chosen = choose(work, judge, policy, baseline, config) if baseline else None
    outcomes = verdicts(chosen, samples, work.read(baseline)) if chosen and baseline else None
    found = evaluation.evaluate(name, samples, outcomes, config, seed=seed).model_copy(
        update={
            "judging": chosen.summary() if isinstance(chosen, LLMJudge) else None,
            "forgetting": _forgetting(work, subject, reference, held_out, config),
            "safety": _safety(work, subject, held_out, world, config),
            "tasks": run_tasks(subject, config.lm_eval) if config.lm_eval else (),
        }
    )
    shown = ("prompt_id", "response", "tokens", "score", "kl")
    work.tracked.log_table({column: samples[column].to_list() for column in shown}, "samples.json")
    return EvaluationResult(
        evaluation=found,
        samples=work.publish_table(samples, "samples"),
        verdicts=None if outcomes is None else work.publish_table(outcomes, "verdicts"),
        curve=evaluation.annotate_curve(work.read(rollouts), world) if rollouts else (),
        metrics=numbers(found),
    )


def judge(
    run: PipelineRun, trial: Trial, policies: dict[str, PolicyResult]
) -> tuple[EvaluationResult, dict[str, EvaluationResult]]:
    """Evaluate the SFT policy, and every policy against it."""
    fixed = (trial.sft, trial.reward, trial.judging, trial.held_out)
    baseline = evaluate_policy.named("evaluate-sft")(
        run, run.called("sft"), trial.sft, *fixed, None, None, trial.data, trial.config
    )
    judged = {
        name: evaluate_policy.named(f"evaluate-{name}")(
            run,
            run.called(name),
            policy.model,
            *fixed,
            baseline.samples,
            policy.rollouts,
            trial.data,
            trial.config,
        )
        for name, policy in policies.items()
    }
    return baseline, judged


def _forgetting(
    work: StageWork, subject: "Subject", reference: "Subject", held_out: HeldOut, config: EvaluateConfig
) -> Forgetting | None:
    from rlhf.evaluation import forgetting

    text, demonstrations = (
        work.read(ref) if ref is not None else None for ref in (held_out.text, held_out.demonstrations)
    )
    return forgetting.measure(subject, reference, text, demonstrations, config, seed=work.run.seed)


def _safety(
    work: StageWork, subject: "Subject", held_out: HeldOut, world: "World | None", config: EvaluateConfig
) -> Safety | None:
    """Measure harm and refusal; every answer goes to the stage's MLflow run, so that a rate can be looked into."""
    from rlhf.data.helpdesk.phrases import RUDE
    from rlhf.evaluation import safety

    given: dict[str, DatasetRef | None] = {"red_team": held_out.red_team, "benign": held_out.benign}
    sets: dict[str, pl.DataFrame] = {name: work.read(ref) for name, ref in given.items() if ref is not None}
    if not sets:
        return None
    phrases = RUDE.values() if world else ()
    classifier = safety.classifier(config.safety, phrases, device=work.precision.device)
    answers = safety.answer(subject, sets, classifier, seed=work.run.seed)
    work.tracked.log_table(answers.to_dict(as_series=False), "safety.json")
    return safety.summarise(answers, config)


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
        elif name == "tasks":
            flat |= {f"task_{score.task}_{score.metric}": score.value for score in value}
    return flat
