"""Stage `gate`: each candidate against the rules of the recipe."""

from schemas.config import EvaluateConfig, GateConfig
from schemas.reports import EvaluationResult, GateDecision
from tasks.stage import stage
from tasks.work import StageWork


@stage("gate")
def decide(
    work: StageWork,
    sft: EvaluationResult,
    candidates: dict[str, EvaluationResult],
    evaluate: EvaluateConfig,
    config: GateConfig,
) -> GateDecision:
    """Apply every rule to every candidate."""
    from rlhf.evaluation import gate

    rules, winner = gate.decide(
        {name: result.evaluation for name, result in candidates.items()},
        sft.evaluation,
        config,
        evaluate,
    )
    passed = {name: float(all(rule.passed for rule in found)) for name, found in rules.items()}
    return GateDecision(
        rules=rules, winner=winner, metrics={f"{name}_passed": value for name, value in passed.items()}
    )
