import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("before", "arguments", "said"),
    [
        (["support/notes.txt"], ["support"], "is not empty"),
        ([], ["My Project"], "--name"),
        ([], ["support", "--name", "1st"], "'1st'"),
    ],
)
def test_nothing_is_overwritten_and_the_name_can_be_one(tmp_path, monkeypatch, before, arguments, said):
    monkeypatch.chdir(tmp_path)
    for name in before:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("mine", encoding="utf-8")
    result = CliRunner().invoke(app, ["init", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == before


@pytest.mark.e2e
def test_a_starter_project_runs_as_its_readme_says(tmp_path):
    def rlhf(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "RLHF_HOME": "", "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments],
            env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip

    assert rlhf("init", "support", cwd=tmp_path).returncode == 0
    project = tmp_path / "support"
    assert rlhf("config", "recipe.yaml", cwd=project).returncode == 0
    small = ["pretrain.steps=30", "sft.steps=10", "reward.steps=10", "ppo.iterations=1", "dpo.steps=4"]
    done = rlhf("run", "recipe.yaml", *small, "--json", cwd=project)
    assert done.returncode in {0, 3}, done.stderr
    summary = json.loads(done.stdout)
    assert {stage["status"] for stage in summary["stages"]} == {"ran"}
    assert next(s for s in summary["stages"] if s["name"] == "validate")["metrics"]["quarantined"] == 0
    assert (project / ".rlhf" / "store").is_dir()
    assert "ppo" in rlhf("models", "--name", "support", cwd=project).stdout
