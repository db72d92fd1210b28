"""Sweeps as their users run them: the command line, real stages, a real tracking database."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.sweep import last_evaluation
from schemas.config.loading import load_config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["micro"], "Nothing is varied"),
        (["micro", "ppo.foo=1,2"], "foo"),
        (["micro", "nobody.kl_coef=1,2"], "nobody"),
        (["micro", "ppo.kl_coef=0.1"], "no alternative"),
        (["micro", "ppo.kl_coef=0.1,-2"], "kl_coef"),
        (["micro", "ppo.minibatch_size=4,3"], "multiple"),
        (["micro", "ppo.kl_coef=0.1,0.2", "--objective", "reward/win_rate"], "--objective"),
        (["micro", "ppo.kl_coef=0.1,0.2", "--set", "sft.steps=many"], "sft.steps"),
        (["micro", "ppo.kl_coef=-1..1", "--search", "optuna"], "kl_coef"),
        (["micro", "--seeds", "3", "--search", "optuna"], "Nothing is varied"),
    ],
)
def test_what_cannot_be_swept_is_one_line_and_exit_code_2_before_anything_runs(
    arguments, named, tmp_path, monkeypatch
):
    monkeypatch.setenv("RLHF_HOME", str(tmp_path / "home"))
    result = CliRunner().invoke(app, ["sweep", *arguments])
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert named in result.stderr
    assert not (tmp_path / "home").exists()


def test_a_sweep_stops_where_only_the_choice_is_left():
    assert last_evaluation(load_config("micro")) == "evaluate-dpo"
    assert last_evaluation(load_config("micro", ["labelling.rounds=2"])) == "evaluate-dpo-2"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def _sweep(home: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "sweep", "micro", *arguments, "--json"],
        env={**ours, "RLHF_HOME": str(home)}, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.e2e
def test_a_grid_shares_its_stages_and_is_one_table_below_one_run(home):
    from mlflow import MlflowClient

    found = _sweep(home, "ppo.kl_coef=0.02,0.7", "--seeds", "2")
    rows = found["rows"]
    assert [(row["setting"]["ppo.kl_coef"], row["seed"]) for row in rows] == [
        (0.02, 0), (0.02, 1), (0.7, 0), (0.7, 1),
    ]  # fmt: skip
    for row in rows[:2]:
        assert {"validate", "pretrain", "sft", "reward", "ppo", "dpo", "evaluate-dpo"} <= set(row["computed"])
        assert not {"gate", "register", "report"} & set(row["computed"])
    # The second setting's seeds find all but what the knob touches.
    assert [row["computed"] for row in rows[2:]] == [["ppo", "evaluate-ppo"]] * 2
    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    children = {run.info.run_id: run for run in client.search_runs(
        [client.get_run(found["sweep_id"]).info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{found['sweep_id']}'",
    )}  # fmt: skip
    assert set(children) == {row["run_id"] for row in rows}
    for row in rows:
        run = children[row["run_id"]]
        assert run.info.run_name == f"ppo.kl_coef={row['setting']['ppo.kl_coef']} seed={row['seed']}"
        assert float(run.data.params["ppo.kl_coef"]) == row["setting"]["ppo.kl_coef"]
        assert run.data.metrics["ppo/win_rate"] == row["metrics"]["ppo/win_rate"]
    with Path(found["table"]).open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["ppo/win_rate"]) for line in lines] == [row["metrics"]["ppo/win_rate"] for row in rows]
    assert {item.path for item in client.list_artifacts(found["sweep_id"], "sweep")} == {
        f"sweep/sweep-{found['sweep_id']}.{kind}" for kind in ("csv", "json")
    }
    assert not client.search_registered_models()


@pytest.mark.e2e
def test_a_failed_run_loses_no_other_and_the_next_sweep_goes_on(home):
    found = _sweep(home, "dpo.learning_rate=1e30,1e-4", "--set", "ppo.kl_coef=0.02", code=1)
    failed, done = found["rows"]
    assert (failed["status"], done["status"], found["status"]) == ("failed", "done", "failed")
    assert "learning_rate" in failed["error"]
    assert found["best"]["setting"] == {"dpo.learning_rate": 1e-4}
    again = _sweep(home, "dpo.learning_rate=1e-4,9e-5", "--set", "ppo.kl_coef=0.02")
    assert [row["computed"] for row in again["rows"]] == [[], ["dpo", "evaluate-dpo"]]
