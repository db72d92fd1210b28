"""Stage `register`: every aligned model becomes a version; the gate's winner becomes champion."""

import hashlib

from schemas.config.run import of_round
from schemas.reports import EvaluationResult, GateDecision, PolicyResult, Promotion
from tasks.evaluate import numbers
from tasks.run import entries
from tasks.stage import stage
from tasks.work import StageWork, artifact_store, code_tags, connect_tracking

SHOWN = ("win_rate", "win_rate_low", "win_rate_high", "kl", "gold", "right", "rude")
"""What a version has shown, as tags."""


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
    _show_on_their_own_runs(work, evaluations)
    stages = entries(work.run.run_id)
    versions: dict[str, int] = {}
    for name, policy in policies.items():
        digest = policy.model.digest
        if digest in known:
            versions[name] = known[digest]
            continue
        work.tracked.log_folder(work.fetch(policy.model), f"models/{name}")
        passed = all(rule.passed for rule in decision.rules[name])
        found = numbers(evaluations[name].evaluation)
        turn = stages[name].record.round or 1
        versions[name] = tracking.register(
            work.run.name,
            run_id=work.run_id,
            artifact_folder=f"models/{name}",
            tags={
                "aligner": name,
                "round": str(turn),
                "gate": "passed" if passed else "refused",
                **{key: f"{found[key]:.4f}" for key in SHOWN if key in found},
                "pipeline_run": work.run.run_id,
                "seed": str(work.run.seed),
                "digest": digest,
                "uri": policy.model.uri,
                **provenance(work.run.run_id, turn),
            },
            description=f"{name.upper()} of recipe {work.run.name}, pipeline run {work.run.run_id}: {_shown(found)}",
        )
    if decision.winner is None:
        return Promotion(verdict="refused", versions=versions)
    winner = versions[decision.winner]
    if policies[decision.winner].model.digest not in known:
        tracking.promote(work.run.name, winner)
    alias = "champion" if tracking.resolve(work.run.name, "champion").version == winner else None
    return Promotion(verdict="promoted", versions=versions, version=winner, alias=alias)


def _shown(found: dict[str, float]) -> str:
    if "win_rate" not in found:
        return f"{found['kl']:.1f} nats from the SFT policy"
    low, high = found["win_rate_low"], found["win_rate_high"]
    return f"wins {found['win_rate']:.1%} ({low:.1%} to {high:.1%}) over SFT at {found['kl']:.1f} nats"


def _show_on_their_own_runs(work: StageWork, evaluations: dict[str, EvaluationResult]) -> None:
    """Log each evaluation on its aligner's run, under names that all aligners share: pages compare equal names."""
    found = entries(work.run.run_id)
    for name, result in evaluations.items():
        tracked = connect_tracking(work.run.name).run(found[name].record.run_id)
        tracked.log_metrics(
            {f"evaluate/{key}": value for key, value in numbers(result.evaluation).items()}, 0
        )


def provenance(run_id: str, turn: int) -> dict[str, str]:
    """Return tags that say what a round's models were made from: its configuration, its data and its judges."""
    found = entries(run_id)
    made_from = {
        f"{kind}.{name}": ref.digest
        for stage, kind in (
            ("validate", "data"),
            (of_round("preferences", turn), "data"),
            ("sft", "sft"),
            (of_round("reward", turn), "reward"),
        )
        if stage in found
        for name, ref in found[stage].record.outputs.items()
    }
    stored = artifact_store().read(f"runs/{run_id}/config.json")
    assert stored is not None, "the flow writes it before its first stage"
    return {"config_digest": hashlib.sha256(stored).hexdigest(), **code_tags(), **made_from}
