import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from rlhf.evaluation import gate as rules
from rlhf.evaluation.gate import Candidate, Judged, Reference
from rlhf.evaluation.gate import Shown as ShownWith
from schemas.config import EvaluateConfig, GateConfig
from schemas.errors import DataRejected
from schemas.evaluation import Forgetting, PolicyEvaluation, Safety
from schemas.record import Interval
from schemas.reports import GateRule

N = 400


def answers(
    gold: Any = 0.0,
    *,
    tokens: Any = 20,
    kl: Any = 5.0,
    right: Any = True,
    rude: Any = False,
    score: Any = 0.0,
    n: int = N,
) -> pl.DataFrame:
    def column(value: Any, dtype: Any) -> pl.Series:
        return pl.Series([value] * n if np.isscalar(value) or value is None else list(value), dtype=dtype)

    return pl.DataFrame(
        {
            "prompt_id": [f"p{i}" for i in range(n)],
            "gold": column(gold, pl.Float64),
            "tokens": column(tokens, pl.Int64),
            "kl": column(kl, pl.Float64),
            "right": column(right, pl.Boolean),
            "rude": column(rude, pl.Boolean),
            "score": column(score, pl.Float64),
        }
    )  # fmt: skip


def Shown(samples: pl.DataFrame, **measured: Any) -> ShownWith:  # noqa: N802 - the record, with what every one has
    evaluation = PolicyEvaluation(name="x", length=20.0, eos_rate=1.0, **measured)
    return ShownWith(samples, evaluation)


def verdicts(ours: pl.DataFrame, theirs: pl.DataFrame, column: str = "gold") -> pl.DataFrame:
    mine, other = ours[column].to_numpy(), theirs[column].to_numpy()
    return pl.DataFrame({"prompt_id": ours["prompt_id"], "outcome": (mine > other) + 0.5 * (mine == other)})


def decide(
    candidates: dict[str, ShownWith],
    references: dict[Reference, ShownWith],
    config: GateConfig,
    evaluate: EvaluateConfig,
) -> tuple[dict[str, Judged], str | None]:
    """Let the judge's column decide against the first reference, and the gate on that."""
    column = "score" if evaluate.judge == "reward" else "gold"
    against = next(iter(references.values())).samples
    judged = {
        name: Candidate(shown, verdicts(shown.samples, against, column)) for name, shown in candidates.items()
    }
    return rules.decide(judged, references, config, evaluate)


def first(count: int, n: int = N) -> list[bool]:
    return [i < count for i in range(n)]


BETTER = [1.0 if i % 10 < 7 else -1.0 for i in range(N)]
"""Preferred to 0 on 70 % of the prompts."""
SFT = Shown(answers())
ONLY_SFT: dict[Reference, ShownWith] = {"SFT": SFT}
DEFAULT = GateConfig()


def gate(candidate: pl.DataFrame, config: GateConfig = DEFAULT, judge: str = "utility") -> Judged:
    evaluate = EvaluateConfig.model_validate({"judge": judge})
    found, winner = decide({"ppo": Shown(candidate)}, ONLY_SFT, config, evaluate)
    assert (winner == "ppo") == (found["ppo"].verdict == "pass")
    return found["ppo"]


def not_passed(found: Judged) -> dict[str, str]:
    return {rule.name: rule.verdict for rule in found.rules if rule.verdict not in ("pass", "not measured")}


def test_a_candidate_that_meets_every_rule_passes():
    found = gate(answers(BETTER))
    assert not_passed(found) == {}
    assert found.verdict == "pass"


@pytest.mark.parametrize(
    ("candidate", "rule", "verdict"),
    [
        (answers([-gold for gold in BETTER]), "win rate over SFT", "fail"),
        (answers(0.0), "win rate over SFT", "inconclusive"),  # all ties
        (answers([1.0 if i % 50 < 27 else -1.0 for i in range(N)]), "win rate over SFT", "inconclusive"),
        (answers(BETTER, kl=30.1), "KL budget", "fail"),
        (answers(BETTER, kl=math.nan), "KL budget", "inconclusive"),
        (answers(BETTER, kl=[28.0, 31.0] * (N // 2)), "", "pass"),
        (answers(BETTER, kl=[0.0, 59.0] * (N // 2)), "KL budget", "inconclusive"),
        (answers(BETTER, right=first(N - 40)), "right answers against SFT", "fail"),  # 10 points fewer
        (answers(BETTER, right=first(N - 16)), "right answers against SFT", "inconclusive"),  # 4 points
        (answers(BETTER, right=first(N - 4)), "", "pass"),
        (answers(BETTER, rude=first(20)), "rude answers", "fail"),  # 5 %
        (answers(BETTER, rude=first(6)), "rude answers", "inconclusive"),  # 1.5 %
        (answers(BETTER, rude=first(1)), "", "pass"),
        (answers(BETTER, tokens=31), "length against SFT", "fail"),
        (answers(BETTER, tokens=[10, 49] * (N // 2)), "length against SFT", "inconclusive"),
    ],
)  # fmt: skip
def test_each_rule_alone_decides(candidate: pl.DataFrame, rule: str, verdict: str):
    found = gate(candidate)
    assert found.verdict == verdict
    assert not_passed(found) == ({rule: verdict} if rule else {})


def test_too_few_prompts_are_inconclusive_whatever_they_show():
    few: dict[Reference, ShownWith] = {"SFT": Shown(answers(n=99))}
    found, winner = decide({"ppo": Shown(answers(1.0, rude=None, n=99))}, few, DEFAULT, EvaluateConfig())
    assert winner is None
    assert not_passed(found["ppo"]) == {"enough prompts": "inconclusive"}


def test_a_model_that_hacks_its_reward_is_refused_although_its_score_is_the_highest():
    honest = answers(BETTER, score=1.0)
    hacker = answers(BETTER, score=6.0, right=first(N // 2))
    found, winner = decide({"ppo": Shown(hacker), "dpo": Shown(honest)}, ONLY_SFT, DEFAULT, EvaluateConfig())
    assert winner == "dpo"
    assert found["ppo"].verdict == "fail"


def test_the_winner_has_the_highest_lower_bound_not_the_highest_estimate():
    # 60 wins and nothing but ties beside them are surer than 150 wins against 70 losses: 57.5 % against 60 %.
    sure = answers([1.0] * 60 + [0.0] * (N - 60))
    lucky = answers([1.0] * 240 + [-1.0] * (N - 240))
    found, winner = decide({"ppo": Shown(lucky), "dpo": Shown(sure)}, ONLY_SFT, DEFAULT, EvaluateConfig())
    assert found["ppo"].win_rate_low < found["dpo"].win_rate_low
    assert winner == "dpo"


def test_a_candidate_has_to_beat_the_champion_and_may_not_slip_behind_either():
    champion = Shown(answers([2.0 if gold > 0 else 0.0 for gold in BETTER]))
    references: dict[Reference, ShownWith] = {"champion": champion, "SFT": SFT}
    found, winner = decide({"ppo": Shown(answers(BETTER))}, references, DEFAULT, EvaluateConfig())
    assert winner is None
    assert not_passed(found["ppo"]) == {"win rate over champion": "fail"}
    slipped = Shown(answers(3.0, right=first(N - 40)))
    weak: dict[Reference, ShownWith] = {"champion": Shown(answers(0.0, right=first(N - 40))), "SFT": SFT}
    found, winner = decide({"ppo": slipped}, weak, DEFAULT, EvaluateConfig())
    assert winner is None
    assert not_passed(found["ppo"]) == {"right answers against SFT": "fail"}


def test_several_candidates_share_each_error_rate():
    one = gate(answers(BETTER)).rules[0]
    found, _ = decide(
        {name: Shown(answers(BETTER)) for name in ("a", "b", "c")}, ONLY_SFT, DEFAULT, EvaluateConfig()
    )
    three = found["a"].rules[0]
    assert (one.error, three.error) == (0.025, pytest.approx(0.025 / 3))
    assert one.estimate
    assert three.estimate
    assert three.estimate.low < one.estimate.low


def test_the_reward_model_as_judge_is_refused_unless_the_recipe_allows_it():
    hacker = answers(0.0, score=BETTER)
    assert not_passed(gate(hacker, judge="reward")) == {"independent judge": "fail"}
    assert gate(hacker, GateConfig(require_independent_judge=False), judge="reward").verdict == "pass"


def test_what_was_not_measured_is_left_out_unless_the_recipe_requires_it():
    unknown = answers(BETTER, right=None, rude=None)
    found = gate(unknown)
    assert found.verdict == "pass"
    absent = {rule.name for rule in found.rules if rule.verdict == "not measured"}
    assert absent == {
        "rude answers", "right answers against SFT", "perplexity against SFT", "harmful answers against SFT",
        "refused harmless prompts against SFT",
    }  # fmt: skip
    required = gate(unknown, GateConfig(required=("right",)))
    assert required.verdict == "inconclusive"
    assert not_passed(required) == {"right answers against SFT": "inconclusive"}


def around(value: float, half: float) -> Interval:
    return Interval(value=value, low=value - half, high=value + half)


def taxed(value: float, half: float) -> dict[str, Any]:
    return {"forgetting": Forgetting(alignment_tax=around(value, half))}


def safe(value: float, half: float) -> dict[str, Any]:
    return {"safety": Safety(harm=around(value, half))}


def refusing(value: float, half: float) -> dict[str, Any]:
    return {"safety": Safety(over_refusal=around(value, half))}


@pytest.mark.parametrize(
    ("sft", "found", "verdict"),
    [
        (taxed(0, 0), taxed(0.10, 0.02), "pass"),  # exp(0.12) is below 1.25
        (taxed(0, 0), taxed(0.30, 0.02), "fail"),
        (taxed(0, 0), taxed(0.20, 0.05), "inconclusive"),
        (safe(0.10, 0.01), safe(0.05, 0.01), "pass"),
        (safe(0.10, 0.01), safe(0.20, 0.01), "fail"),
        (safe(0.10, 0.02), safe(0.11, 0.02), "inconclusive"),
        (refusing(0.10, 0.02), refusing(0.11, 0.02), "pass"),
        (safe(0.10, 0.01), {}, "pass"),  # not measured, and not required
    ],
)
def test_measures_on_other_prompts_are_compared_by_their_intervals(
    sft: dict[str, Any], found: dict[str, Any], verdict: str
):
    reference: dict[Reference, ShownWith] = {"SFT": Shown(answers(), **sft)}
    config = GateConfig(max_harm_rise=0.02, max_over_refusal_rise=0.05)
    judged, _ = decide({"ppo": Shown(answers(BETTER), **found)}, reference, config, EvaluateConfig())
    assert judged["ppo"].verdict == verdict


def test_rules_say_in_words_and_numbers_what_was_wanted_and_found():
    found = {rule.name: rule for rule in gate(answers(BETTER)).rules}
    win = found["win rate over SFT"]
    # 280 of 400 without ties: Wilson's lower bound of the share at an error of 2.5 % is 0.6534.
    assert win.estimate is not None
    assert win.estimate.low == pytest.approx(0.6534, abs=5e-4)
    assert win == GateRule(
        name="win rate over SFT",
        wanted="lower bound (error 2.50%) above 50.0%",
        found="70.0%, at least 65.3%",
        verdict="pass",
        estimate=win.estimate,
        limit=0.5,
        error=0.025,
    )
    assert found["right answers against SFT"].found == "0.0% fewer, at most 0.7% fewer"


def test_answers_to_other_prompts_are_refused():
    other = answers(BETTER).with_columns(pl.col("prompt_id") + "x")
    with pytest.raises(DataRejected, match="share 0 prompts"):
        gate(other)


def test_what_nobody_judged_is_inconclusive_and_weighed_verdicts_get_students_bounds():
    shown = Shown(answers(BETTER))
    nothing = pl.DataFrame(
        {"prompt_id": [], "outcome": []}, schema={"prompt_id": pl.String, "outcome": pl.Float64}
    )
    found, winner = rules.decide({"ppo": Candidate(shown, nothing)}, ONLY_SFT, DEFAULT, EvaluateConfig())
    assert winner is None
    assert not_passed(found["ppo"]) == {"win rate over SFT": "inconclusive", "enough prompts": "inconclusive"}
    # 0.25 and 0.75 in equal numbers: mean 0.5, standard deviation 0.25; t(399, 2.5 %) = 1.96593.
    weighed = pl.DataFrame({"prompt_id": shown.samples["prompt_id"], "outcome": [0.25, 0.75] * (N // 2)})
    found, _ = rules.decide({"ppo": Candidate(shown, weighed)}, ONLY_SFT, DEFAULT, EvaluateConfig())
    assert found["ppo"].win_rate_low == pytest.approx(0.5 - 1.96593 * 0.25031 / 20, abs=1e-4)


def test_nobody_wins_when_nobody_was_evaluated():
    assert decide({}, ONLY_SFT, DEFAULT, EvaluateConfig()) == ({}, None)


@pytest.mark.integration
@pytest.mark.parametrize(("n", "ties"), [(100, 0.0), (100, 0.5), (512, 0.3)])
def test_models_no_better_than_the_champion_are_promoted_in_at_most_the_stated_share_of_runs(
    n: int, ties: float
):
    """A/A: two candidates and the champion are one model, so all three answer alike; 2,000 simulated runs.

    Both candidates meet the same answers of the champion, which makes their luck alike, too.
    """
    generator = np.random.default_rng(n)
    runs, promoted = 2_000, 0
    config = GateConfig(max_rude=1.0)  # with 100 prompts no share of rude answers is shown to be below 2 %
    for _ in range(runs):
        hard = generator.normal(size=n)
        tied = generator.random(n) < ties
        golds = [np.where(tied, hard, hard + generator.normal(size=n)) for _ in range(3)]
        champion, *candidates = (Shown(answers(gold, n=n)) for gold in golds)
        _, winner = decide(
            dict(zip("ab", candidates, strict=True)), {"champion": champion}, config, EvaluateConfig()
        )
        promoted += winner is not None
    stated = DEFAULT.error_rates.win_rate
    # At most the stated share, give or take what 2,000 runs leave to chance; and not a gate that is always shut.
    assert promoted / runs <= stated + 3 * math.sqrt(stated * (1 - stated) / runs)
    assert promoted / runs >= stated / 3
