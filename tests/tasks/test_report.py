"""The page's content: the command that repeats the run, and responses side by side."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from schemas.config import RunConfig
from schemas.config.loading import load_config
from schemas.evaluation import PolicyEvaluation
from schemas.record import Interval
from schemas.refs import DatasetRef
from schemas.reports import EvaluationResult, MetricPoint
from tasks import report
from tasks.work import artifact_store

RUN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RLHF_STORE", raising=False)
    monkeypatch.setenv("RLHF_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["seed=3"],
        ["ppo.kl_coef=0.2", "dpo.beta=0.05"],
        ["ppo.learning_rate=1e-6", "compute.device=cpu", "ppo.target_kl=null"],
    ],
)
def test_the_command_makes_the_same_tree_again(overrides: list[str]):
    config = load_config("helpdesk", overrides)
    program, verb, recipe, *found = report.repeat(config, RUN).split()
    assert (program, verb, recipe) == ("rlhf", "run", "helpdesk")
    assert len(found) == len(overrides)
    assert load_config(recipe, found) == config


def test_a_tree_that_no_shipped_recipe_makes_is_repeated_from_the_store(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    own = RunConfig(name="mine")
    fewer = RunConfig(aligners=RunConfig().aligners[:1])
    for config in (own, fewer):
        assert report.repeat(config, RUN) == f"rlhf run {home}/store/runs/{RUN}/config.json"
    monkeypatch.setenv("RLHF_STORE", "s3://bucket/prefix")
    assert f"--run-id {RUN} --artifact-path config.json" in report.repeat(own, RUN)


def test_a_curve_holds_what_was_logged_step_by_step_and_not_the_final_number():
    logged = [(1, 0.5), (2, 0.6), (2, 0.9)]  # at the end, the held-out accuracy under the same name
    points = tuple(MetricPoint(key="reward/accuracy", value=value, step=step) for step, value in logged)
    alone = (MetricPoint(key="reward/longer_baseline", value=0.4, step=2),)
    assert report._histories(points + alone) == {"accuracy": ((1, 0.5), (2, 0.6))}


@pytest.fixture
def evaluated(tmp_path: Path) -> Callable[..., EvaluationResult]:
    """Return a function that publishes samples, given as (prompt id, response), as a policy's evaluation."""

    def publish(name: str, said: list[tuple[str, str]], **seen: object) -> EvaluationResult:
        turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}]
        frame = pl.DataFrame(
            {
                "prompt_id": [key for key, _ in said],
                "prompt": [[*turns, {"role": "user", "content": f"Question {key}"}] for key, _ in said],
                "response": [response for _, response in said],
                "score": [0.5] * len(said),
                "finished": [True] * len(said),
            }
        ).with_columns(**{column: pl.lit(value) for column, value in seen.items()})
        path = tmp_path / f"{name}.parquet"
        frame.write_parquet(path)
        uri, digest = artifact_store().publish(path)
        return EvaluationResult(
            evaluation=PolicyEvaluation(
                name=name, score=Interval(value=0, low=0, high=0), length=1, eos_rate=1
            ),
            samples=DatasetRef(uri=uri, digest=digest, kind="samples", rows=len(said)),
        )

    return publish


def test_the_page_shows_what_the_judge_saw_then_and_judges_nothing_again(
    evaluated: Callable[..., EvaluationResult],
):
    # No world knows this question, so that to judge it now would be an error.
    sft = evaluated("sft", [("a", "sft a")], gold=1.25, right=True, rude=False)
    answer = report._responses({"sft": sft})[0].answers[0]
    assert (answer.gold, answer.right, answer.rude) == (1.25, True, False)


def test_samples_of_before_the_judge_was_kept_are_shown_without_it(
    evaluated: Callable[..., EvaluationResult],
):
    answer = report._responses({"sft": evaluated("sft", [("a", "sft a")])})[0].answers[0]
    assert (answer.text, answer.gold, answer.right, answer.rude) == ("sft a", None, None, None)


def test_responses_stand_beside_those_to_the_same_prompt_whatever_their_order(
    evaluated: Callable[..., EvaluationResult],
):
    results = {
        "sft": evaluated("sft", [("a", "sft a"), ("b", "sft b")]),
        "ppo": evaluated("ppo", [("b", "ppo b"), ("c", "ppo c"), ("a", "ppo a")]),
        "dpo": evaluated("dpo", [("b", "dpo b")]),
    }
    pairs = report._responses(results)
    assert [pair.prompt[-1].text for pair in pairs] == ["Question a", "Question b"]
    assert [turn.role for turn in pairs[0].prompt] == ["user", "assistant", "user"]
    assert [[answer.text for answer in pair.answers] for pair in pairs] == [
        ["sft a", "ppo a"],
        ["sft b", "ppo b", "dpo b"],
    ]
    table = report._columns(pairs)
    assert table["dpo"] == [None, "dpo b"]
    assert table["ppo"] == ["ppo a", "ppo b"]
    assert table["prompt"][0] == "user: Hello.\nassistant: Yes?\nuser: Question a"
    assert {len(column) for column in table.values()} == {2}
