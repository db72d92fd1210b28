import math

import pytest

from rlhf.evaluation.gate import decide
from schemas.config import EvaluateConfig, GateConfig
from schemas.evaluation import PolicyEvaluation
from schemas.record import Interval
from schemas.reports import GateRule


def share(value: float) -> Interval:
    return Interval(value=value, low=max(0.0, value - 0.04), high=min(1.0, value + 0.04))


def policy(name: str = "ppo", **changes: object) -> PolicyEvaluation:
    good = PolicyEvaluation(
        name=name,
        win_rate=0.775,
        win_rate_low=0.74,
        win_rate_high=0.81,
        kl=12.3,
        score=Interval(value=1.4, low=1.3, high=1.5),
        right=share(0.69),
        rude=share(0.0),
        length=21.0,
        eos_rate=0.99,
        num_prompts=512,
    )
    return good.model_copy(update=changes)


SFT = policy(
    "sft", win_rate=None, win_rate_low=None, win_rate_high=None, kl=0.0, right=share(0.698), rude=share(0.09)
)


DEFAULT = GateConfig()


def failed(candidate: PolicyEvaluation, gate: GateConfig = DEFAULT, judge: str = "utility") -> list[str]:
    config = EvaluateConfig.model_validate({"judge": judge})
    rules, winner = decide({candidate.name: candidate}, SFT, gate, config)
    assert (winner is None) == (not all(rule.passed for rule in rules[candidate.name]))
    return [rule.name for rule in rules[candidate.name] if not rule.passed]


def test_a_candidate_that_meets_every_rule_passes():
    assert failed(policy()) == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"win_rate_low": 0.5}, "win rate over SFT"),
        ({"win_rate": None, "win_rate_low": None}, "win rate over SFT"),
        ({"win_rate_low": math.nan}, "win rate over SFT"),
        ({"num_prompts": 99}, "enough prompts"),
        ({"kl": 30.1}, "KL budget"),
        ({"kl": math.nan}, "KL budget"),
        ({"right": share(0.647)}, "right answers"),
        ({"rude": share(0.021)}, "rude answers"),
    ],
)
def test_each_rule_alone_refuses(changes: dict[str, object], rule: str):
    assert failed(policy(**changes)) == [rule]


def test_a_model_that_hacks_its_reward_is_refused_although_its_score_is_the_highest():
    honest = policy("dpo", win_rate=0.7, win_rate_low=0.66, win_rate_high=0.74)
    hacker = policy("ppo", score=Interval(value=6.0, low=5.9, high=6.1), right=share(0.30))
    _, winner = decide({"ppo": hacker, "dpo": honest}, SFT, GateConfig(), EvaluateConfig())
    assert winner == "dpo"


def test_the_winner_has_the_highest_lower_bound_not_the_highest_estimate():
    sure = policy("dpo", win_rate=0.76, win_rate_low=0.73)
    lucky = policy("ppo", win_rate=0.80, win_rate_low=0.70)
    assert decide({"ppo": lucky, "dpo": sure}, SFT, GateConfig(), EvaluateConfig())[1] == "dpo"


def test_the_reward_model_as_judge_is_refused_unless_the_recipe_allows_it():
    assert failed(policy(), judge="reward") == ["independent judge"]
    assert failed(policy(), GateConfig(require_independent_judge=False), judge="reward") == []


def test_rules_about_truth_apply_only_where_the_judge_knows_it():
    rules, winner = decide({"ppo": policy(right=None, rude=None)}, SFT, GateConfig(), EvaluateConfig())
    assert winner == "ppo"
    assert not {"right answers", "rude answers"} & {rule.name for rule in rules["ppo"]}


def test_rules_say_in_words_what_was_wanted_and_found():
    rules, _ = decide({"ppo": policy()}, SFT, GateConfig(), EvaluateConfig())
    assert rules["ppo"][0] == GateRule(
        name="win rate over SFT",
        wanted="lower bound of the 95% interval above 50.0%",
        found="77.5%, lower bound 74.0%",
        passed=True,
    )
    assert [rule.found for rule in rules["ppo"] if rule.name == "right answers"] == ["69.0% (-0.8 points)"]


def test_nobody_wins_when_nobody_was_evaluated():
    assert decide({}, SFT, GateConfig(), EvaluateConfig()) == ({}, None)
