from rlhf.report.comparison import render_comparison
from rlhf.report.content import ReportContent
from schemas.record import Interval


def _changed(content: ReportContent) -> ReportContent:
    ppo = content.evaluations["ppo"].model_copy(
        update={
            "win_rate": 0.9, "win_rate_low": 0.88, "win_rate_high": 0.92, "kl": 20.0,
            "gold": Interval(value=1.95, low=1.9, high=2.0),
        }
    )  # fmt: skip
    return content.model_copy(update={"run_id": "f" * 32, "evaluations": {**content.evaluations, "ppo": ppo}})


def test_both_runs_their_settings_and_the_differences_stand_in_the_page(content: ReportContent):
    page = render_comparison(
        content, _changed(content), {"ppo.kl_coef": (0.1, 0.02), "ppo.guard": (None, "<b>")}
    )
    for shown in (content.run_id, "f" * 32, "ppo.kl_coef", "0.02", "&lt;b&gt;"):
        assert shown in page, shown
    # 90.0 - 77.5 points: the intervals 74.1 to 80.8 and 88 to 92 do not meet.
    row = next(line for line in page.splitlines() if "<b>PPO</b>" in line and "win rate" in line)
    assert "+12.5 points" in row
    assert "<b>apart</b>" in row
    gold = next(line for line in page.splitlines() if "<b>PPO</b>" in line and "hidden utility" in line)
    assert "+0.02" in gold
    assert "meet" in gold
    kl = next(line for line in page.splitlines() if "<b>PPO</b>" in line and "KL" in line)
    assert "+7.70" in kl
    assert "apart" not in kl


def test_curves_of_both_runs_lie_over_each_other(content: ReportContent):
    page = render_comparison(content, content, {})
    drawn = [part for part in page.split("<svg") if "in both runs" in part]
    assert drawn
    for chart in drawn:
        assert chart.count("data-name=") == 2
    assert "resolve to the same tree" in page


def test_answers_to_the_same_prompt_stand_beside_each_other(content: ReportContent):
    page = render_comparison(content, _changed(content), {})
    assert page.count("PPO IN A") == page.count("PPO IN B") == len(content.responses)
    asked_else = content.model_copy(update={"responses": ()})
    assert "different prompts" in render_comparison(content, asked_else, {})


def test_runs_that_were_judged_differently_are_told_apart(content: ReportContent):
    config = content.config.model_copy(
        update={"evaluate": content.config.evaluate.model_copy(update={"judge": "reward"})}
    )
    other = content.model_copy(update={"config": config})
    assert "do not compare" in render_comparison(content, other, {})
    assert "do not compare" not in render_comparison(content, content, {})
