"""Stage `gate`: each candidate against the rules of the recipe."""

import json

from schemas.config import EvaluateConfig, GateConfig
from schemas.refs import DatasetRef, FileRef
from schemas.reports import Champion, EvaluationResult, GateDecision, GateRule, GateVerdict
from tasks.stage import stage
from tasks.work import StageWork

CODES: dict[GateVerdict, float] = {"pass": 1.0, "inconclusive": 0.5, "fail": 0.0}
"""Verdicts as metrics."""


@stage("gate")
def decide(
    work: StageWork,
    sft: EvaluationResult,
    candidates: dict[str, EvaluationResult],
    champion: Champion | None,
    incumbent: EvaluationResult | None,
    verdicts: dict[str, DatasetRef],
    evaluate: EvaluateConfig,
    config: GateConfig,
) -> GateDecision:
    """Apply every rule to every candidate; `verdicts` are the judge's, against the incumbent, or SFT without one."""
    from rlhf.evaluation import gate

    def shown(result: EvaluationResult) -> gate.Shown:
        return gate.Shown(work.read(result.samples), result.evaluation)

    references: dict[gate.Reference, gate.Shown] = {"SFT": shown(sft)}
    if incumbent is not None:
        references = {"champion": shown(incumbent), **references}
    reigning = champion.candidate if champion else None
    judged, winner = gate.decide(
        {
            name: gate.Candidate(shown(result), work.read(verdicts[name]))
            for name, result in candidates.items()
            if name != reigning
        },
        references,
        config,
        evaluate,
    )
    rules = {name: found.rules for name, found in judged.items()}
    decided = {name: found.verdict for name, found in judged.items()}
    if champion is not None and reigning is not None:
        rules[reigning], decided[reigning] = (_reigns(champion),), "pass"
    decision = GateDecision(
        rules={name: rules[name] for name in candidates},
        verdicts={name: decided[name] for name in candidates},
        winner=winner or reigning,
        champion=champion.version if champion else 0,
        metrics={f"{name}_verdict": CODES[decided[name]] for name in candidates},
    )
    compared = {"sft": sft, **candidates, **({"champion": incumbent} if incumbent else {})}
    answers = {name: result.samples.digest for name, result in compared.items()}
    answers |= {f"{name} judged": table.digest for name, table in verdicts.items()}
    return decision.model_copy(update={"evidence": _evidence(work, decision, answers, evaluate, config)})


def _reigns(champion: Champion) -> GateRule:
    return GateRule(
        name="champion",
        wanted="better than the champion",
        found=f"is the champion (version {champion.version}) already",
        verdict="pass",
    )


def _evidence(
    work: StageWork,
    decision: GateDecision,
    answers: dict[str, str],
    evaluate: EvaluateConfig,
    config: GateConfig,
) -> FileRef:
    """Write down what was decided, by which rules, on which answers: equal evidence has an equal digest."""
    content = {
        "decision": decision.model_dump(mode="json", exclude={"evidence", "metrics"}),
        "gate": config.model_dump(mode="json"),
        "evaluate": evaluate.model_dump(mode="json"),
        "answers": answers,
    }
    path = work.folder / "gate.json"
    path.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")
    return work.publish_file(path)
