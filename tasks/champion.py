"""What a run's candidates have to beat: the registry's champion, on the same held-out prompts, by the same judge."""

from schemas.config import EvaluateConfig
from schemas.pipeline import PipelineRun, Trial
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import Champion, Comparison, Contest, EvaluationResult, PolicyResult
from tasks.evaluate import evaluate_policy
from tasks.judge import answers_digest, choose
from tasks.stage import stage
from tasks.work import StageWork, artifact_store, model_registry


def face_champion(
    run: PipelineRun,
    trial: Trial,
    policies: dict[str, PolicyResult],
    judged: dict[str, EvaluationResult],
    baseline: EvaluationResult,
) -> Contest:
    """Let the champion answer the same prompts, and the judge compare; without one, SFT stands in its place."""
    champion = _current(run, policies)
    if champion is None:
        return Contest(verdicts={name: found.verdicts for name, found in judged.items() if found.verdicts})
    if champion.candidate is not None:  # equal bits are not asked twice
        incumbent = judged[champion.candidate]
    else:
        # KL from this run's SFT policy means nothing between two tokenizers; what it says can still be judged.
        reference = trial.sft if _same_tokens(champion.model, trial.sft) else champion.model
        incumbent = evaluate_policy.named("evaluate-champion")(
            run, "champion", champion.model, reference, trial.reward, trial.judging, trial.held_out,
            baseline.samples, None, trial.data, trial.config,
        )  # fmt: skip
    verdicts = {
        name: compare.named(f"compare-{name}")(
            run, policies[name].model, trial.judging, found.samples, incumbent.samples, trial.config
        ).verdicts
        for name, found in judged.items()
        if name != champion.candidate
    }
    return Contest(champion=champion, incumbent=incumbent, verdicts=verdicts)


def _asked(policy: ModelRef, theirs: DatasetRef, config: EvaluateConfig, **_: object) -> str:
    return answers_digest(policy, theirs, config)


@stage("compare", fingerprint=_asked)
def compare(
    work: StageWork,
    policy: ModelRef,
    judging: ModelRef | None,
    samples: DatasetRef,
    theirs: DatasetRef,
    config: EvaluateConfig,
) -> Comparison:
    """Have the recipe's judge compare a policy's answers with the champion's, prompt by prompt."""
    from rlhf.evaluation.judges import verdicts

    found = verdicts(choose(work, judging, policy, theirs, config), work.read(samples), work.read(theirs))
    metrics = {"win_rate": float(found["outcome"].to_numpy().mean())} if found.height else {}
    return Comparison(verdicts=work.publish_table(found, "verdicts"), metrics=metrics)


def _current(run: PipelineRun, policies: dict[str, PolicyResult]) -> Champion | None:
    """Return the champion of the recipe's registered model, and which of this run's models it is, if any."""
    registry = model_registry(run.name)
    held = [version for version in registry.versions() if "champion" in version.aliases]
    if not held:
        return None
    digest, uri = held[0].tags.get("digest"), held[0].tags.get("uri", "")
    named = [name for name, policy in policies.items() if policy.model.digest == digest]
    model = ModelRef(uri=uri, digest=digest, role="policy") if digest else None
    if model is None or not (named or artifact_store().exists(model)):
        # Registered from another store, or by other means: MLflow has the files.
        with registry.files(held[0]) as folder:
            uri, digest = artifact_store().publish(folder)
        model = ModelRef(uri=uri, digest=digest, role="policy")
    return Champion(version=held[0].version, model=model, candidate=named[0] if named else None)


def _same_tokens(one: ModelRef, other: ModelRef) -> bool:
    store = artifact_store()
    first, second = ((store.fetch(model) / "tokenizer.json").read_bytes() for model in (one, other))
    return first == second
