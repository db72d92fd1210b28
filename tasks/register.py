"""Stage `register`: every aligned model becomes a version; the gate's winner becomes champion, or waits for a person."""

import hashlib
import shutil
from typing import Literal

from rlhf.adapters.registry import ModelRegistry
from schemas.config import GateConfig
from schemas.config.run import of_round
from schemas.refs import ModelRef
from schemas.registry import Version
from schemas.reports import EvaluationResult, GateDecision, PolicyResult, Promotion
from tasks.approval import APPROVED, REJECTED, WAITING
from tasks.evaluate import numbers
from tasks.report import read_content
from tasks.run import entries
from tasks.stage import stage
from tasks.turns import alone
from tasks.work import StageWork, artifact_store, code_tags, connect_tracking, model_registry

VERDICTS = {"pass": "passed", "fail": "refused", "inconclusive": "inconclusive"}
"""The gate's verdict as the tag `gate`."""
SHOWN = ("win_rate", "win_rate_low", "win_rate_high", "kl", "gold", "right", "rude")
"""What a version has shown, as tags."""


@stage("register", reuse=False)
def register_models(
    work: StageWork,
    policies: dict[str, PolicyResult],
    evaluations: dict[str, EvaluationResult],
    decision: GateDecision,
    config: GateConfig,
) -> Promotion:
    """Register each aligned model once (by digest) and move the aliases to this run's winner."""
    registry = model_registry(work.run.name)
    _show_on_their_own_runs(work, evaluations)
    versions: dict[str, int] = {}
    with alone(work.run, f"registry/{work.run.name}"):  # another run may have made the same model just now
        known = {version.tags.get("digest"): version.version for version in registry.versions()}
        for name, policy in policies.items():
            versions[name] = known.get(policy.model.digest) or _register(
                work, registry, name, policy.model, evaluations[name], decision
            )
            registry.tag(versions[name], **_judgement(name, decision))
    if decision.winner is None:
        return Promotion(verdict="refused", versions=versions)
    held = [version for version in registry.versions() if "champion" in version.aliases]
    reigning = held[0].version if held else None
    winner = registry.resolve(str(winning(decision.winner, versions, set(known.values()), reigning)))
    verdict = _settle(work, registry, winner, decision, config)
    aliases = registry.resolve(str(winner.version)).aliases
    return Promotion(
        verdict=verdict,
        versions=versions,
        version=winner.version,
        alias=next((alias for alias in ("champion", "candidate") if alias in aliases), None),
    )


def winning(winner: str, versions: dict[str, int], known: set[int], reigning: int | None) -> int:
    """Return the version that won; where one of the run's own models reigns, only a new model takes its place.

    The others were before the gate when that one was chosen: a run that is resumed or repeated decides nothing anew.
    """
    if reigning in versions.values() and versions[winner] in known:
        return int(reigning or 0)
    return versions[winner]


def _settle(
    work: StageWork, registry: ModelRegistry, winner: Version, decision: GateDecision, config: GateConfig
) -> Literal["promoted", "refused", "waiting"]:
    """Promote the winner, or say what keeps it from being promoted."""
    if "champion" in winner.aliases:
        return "promoted"
    if "rolled_back_at" in winner.tags or winner.tags.get("approval") == REJECTED:
        return "refused"  # by a person, whom a run does not overrule
    if "candidate" not in winner.aliases:
        registry.propose(winner.version)
    if config.approval == "manual" and winner.tags.get("approval") != APPROVED:
        registry.tag(winner.version, approval=WAITING)
        return "waiting"
    registry.promote(
        winner.version,
        expected=decision.champion,
        why=f"passed the gate of pipeline run {work.run.run_id}",
    )
    return "promoted"


def _register(
    work: StageWork,
    registry: ModelRegistry,
    name: str,
    model: ModelRef,
    evaluation: EvaluationResult,
    decision: GateDecision,
) -> int:
    """Make a model a version: its files, and beside them its card, the gate's numbers and what MLflow needs."""
    from rlhf.adapters.flavor import describe_flavor
    from rlhf.adapters.manifest import scan
    from rlhf.adapters.sbom import sbom
    from rlhf.report.card import card

    folder = work.folder / name
    shutil.copytree(work.fetch(model), folder)
    turn = entries(work.run.run_id)[name].record.round or 1
    origin = provenance(work.run.run_id, turn)
    (folder / "README.md").write_text(card(read_content(work.run.run_id), name, origin), encoding="utf-8")
    if decision.evidence:
        shutil.copyfile(work.fetch(decision.evidence), folder / "gate.json")
    (folder / "sbom.json").write_bytes(sbom(f"{work.run.name}-{name}", model.digest))
    describe_flavor(folder)
    work.tracked.log_folder(folder, f"models/{name}")
    found = numbers(evaluation.evaluation)
    return registry.register(
        run_id=work.run_id,
        artifact_folder=f"models/{name}",
        tags={
            "aligner": name,
            "round": str(turn),
            **{key: f"{found[key]:.4f}" for key in SHOWN if key in found},
            "pipeline_run": work.run.run_id,
            "seed": str(work.run.seed),
            "digest": model.digest,
            "uri": model.uri,
            "files_digest": f"sha256:{hashlib.sha256(scan(folder).canonical()).hexdigest()}",
            **origin,
        },
        description=f"{name.upper()} of recipe {work.run.name}, pipeline run {work.run.run_id}: {_shown(found)}",
    )


def _judgement(name: str, decision: GateDecision) -> dict[str, str]:
    """Return the gate's verdict as tags of a version; the numbers behind it are the evidence."""
    if decision.rules[name][0].name == "champion":
        return {}  # it keeps the verdict by which it became champion
    tags = {"gate": VERDICTS[decision.verdicts[name]], "gate_champion": str(decision.champion)}
    for rule in decision.rules[name]:
        tags[f"gate.{rule.name.replace(' ', '_')}"] = f"{rule.verdict}: {rule.found} (wanted: {rule.wanted})"
    if decision.evidence:
        tags |= {"gate_evidence": decision.evidence.digest, "gate_evidence_uri": decision.evidence.uri}
    return tags


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
