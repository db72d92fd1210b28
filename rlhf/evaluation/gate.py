"""The promotion gate: each rule in words, and the candidate that may become champion."""

from collections.abc import Mapping

from rlhf.evaluation.judges import JUDGES
from schemas.config import EvaluateConfig, GateConfig
from schemas.evaluation import PolicyEvaluation
from schemas.reports import GateRule


def decide(
    evaluations: Mapping[str, PolicyEvaluation],
    sft: PolicyEvaluation,
    config: GateConfig,
    evaluate: EvaluateConfig,
) -> tuple[dict[str, tuple[GateRule, ...]], str | None]:
    """Judge each aligner by every rule; the winner is the passing one with the highest lower bound."""
    rules = {name: _rules(evaluation, sft, config, evaluate) for name, evaluation in evaluations.items()}
    lower_bounds = {
        name: evaluations[name].win_rate_low or 0.0
        for name, judged in rules.items()
        if all(rule.passed for rule in judged)
    }
    return rules, max(lower_bounds, key=lambda name: lower_bounds[name], default=None)


def _rules(
    evaluation: PolicyEvaluation, sft: PolicyEvaluation, config: GateConfig, evaluate: EvaluateConfig
) -> tuple[GateRule, ...]:
    # Conditions are phrased so that NaN and an unknown win rate fail.
    rules = [
        _win_rate(evaluation, config, evaluate),
        GateRule(
            name="enough prompts",
            wanted=f"at least {config.min_prompts} judged prompts",
            found=f"{evaluation.num_prompts} judged prompts",
            passed=evaluation.num_prompts >= config.min_prompts,
        ),
        GateRule(
            name="independent judge",
            wanted="a judge that no aligner was trained on"
            if config.require_independent_judge
            else "any judge",
            found=JUDGES[evaluate.judge],
            passed=evaluate.independent or not config.require_independent_judge,
        ),
        GateRule(
            name="KL budget",
            wanted=f"at most {config.max_kl:g} nats from the SFT policy per response",
            found=f"{evaluation.kl:.1f} nats",
            passed=evaluation.kl <= config.max_kl,
        ),
    ]
    if evaluation.right is not None and sft.right is not None:
        drop = sft.right.value - evaluation.right.value
        rules.append(
            GateRule(
                name="right answers",
                wanted=f"at most {100 * config.max_right_drop:.1f} points below SFT's {sft.right.value:.1%}",
                found=f"{evaluation.right.value:.1%} ({-100 * drop:+.1f} points)",
                passed=drop <= config.max_right_drop,
            )
        )
    if evaluation.rude is not None:
        rules.append(
            GateRule(
                name="rude answers",
                wanted=f"at most {config.max_rude:.1%}",
                found=f"{evaluation.rude.value:.1%}",
                passed=evaluation.rude.value <= config.max_rude,
            )
        )
    return tuple(rules)


def _win_rate(evaluation: PolicyEvaluation, config: GateConfig, evaluate: EvaluateConfig) -> GateRule:
    low = evaluation.win_rate_low
    found = "not judged against SFT"
    if evaluation.win_rate is not None and low is not None:
        found = f"{evaluation.win_rate:.1%}, lower bound {low:.1%}"
    return GateRule(
        name="win rate over SFT",
        wanted=f"lower bound of the {evaluate.confidence:.0%} interval above {config.min_win_rate_low:.1%}",
        found=found,
        passed=low is not None and low > config.min_win_rate_low,
    )
