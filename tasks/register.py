"""Stage `register`: every aligned model becomes a version; the gate's winner becomes champion."""

from schemas.reports import EvaluationResult, GateDecision, PolicyResult, Promotion
from tasks.evaluate import numbers
from tasks.stage import stage
from tasks.work import StageWork, connect_tracking


@stage("register", reuse=False)
def register_models(
    work: StageWork,
    policies: dict[str, PolicyResult],
    evaluations: dict[str, EvaluationResult],
    decision: GateDecision,
) -> Promotion:
    """Register each aligned model once (by digest) and move the aliases if this run's winner is new."""
    tracking = connect_tracking(work.run.name)
    known = {version.tags.get("digest"): version.version for version in tracking.versions(work.run.name)}
    versions: dict[str, int] = {}
    for name, policy in policies.items():
        digest = policy.model.digest
        if digest in known:
            versions[name] = known[digest]
            continue
        work.tracked.log_folder(work.fetch(policy.model), f"models/{name}")
        passed = all(rule.passed for rule in decision.rules[name])
        found = numbers(evaluations[name].evaluation)
        versions[name] = tracking.register(
            work.run.name,
            run_id=work.run_id,
            artifact_folder=f"models/{name}",
            tags={
                "aligner": name,
                "digest": digest,
                "uri": policy.model.uri,
                "gate": "passed" if passed else "refused",
                "pipeline_run": work.run.run_id,
                "seed": str(work.run.seed),
                **{key: f"{value:.4f}" for key, value in found.items() if key.startswith(("win_rate", "kl"))},
            },
            description=f"{name} of recipe {work.run.name}, pipeline run {work.run.run_id}",
        )
    if decision.winner is None:
        return Promotion(verdict="refused", versions=versions)
    winner = versions[decision.winner]
    if policies[decision.winner].model.digest not in known:
        tracking.promote(work.run.name, winner)
    alias = "champion" if tracking.resolve(work.run.name, "champion").version == winner else None
    return Promotion(verdict="promoted", versions=versions, version=winner, alias=alias)
