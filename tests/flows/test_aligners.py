"""Every aligner from the command line, on the micro recipe; and a new one, added as the guide says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "how-to" / "add-an-aligner.md"
ONLINE = "iterations: 1, batch_size: 8, minibatch_size: 8, warmup_iterations: 0, max_new_tokens: 16, group_size: 4, guard: {keep: last}"
FITTED = "steps: 3, batch_size: 8"
ALIGNERS = [
    f"{{method: rloo, {ONLINE}}}",
    f"{{method: grpo, {ONLINE}}}",
    f"{{method: dpo, loss: [sigmoid, sft], loss_weights: [1, 0.1], {FITTED}}}",
    *(f"{{method: {method}, {FITTED}}}" for method in ("kto", "orpo", "cpo", "simpo")),
]


def _run(root: Path, home: Path, *overrides: str) -> dict[str, Any]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "micro", *overrides, "--json"],
        env={**ours, "RLHF_HOME": str(home), "PYTHONPATH": str(root)},
        cwd=root, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    # The gate refuses what has learnt nothing: done, with exit code 3.
    assert done.returncode == 3, done.stderr
    return json.loads(done.stdout)


def test_every_aligner_runs_from_the_recipe_to_its_evaluation(tmp_path):
    summary = _run(ROOT, tmp_path, f"aligners=[{', '.join(ALIGNERS)}]")
    names = ["rloo", "grpo", "dpo", "kto", "orpo", "cpo", "simpo"]
    assert list(summary["evaluation"]) == ["sft", *names]
    stages = {stage["name"]: stage for stage in summary["stages"]}
    digests = {stages[name]["outputs"]["model"]["digest"] for name in (*names, "sft")}
    assert len(digests) == len(names) + 1  # each has learnt something else
    assert set(summary["promotion"]["versions"]) == set(names)
    # What a stage is handed is what its parameters name, and what it learnt from is what MLflow shows.
    assert set(stages["orpo"]["inputs"]) == {"sft", "preferences"}
    assert set(stages["grpo"]["inputs"]) == {"sft", "reward", "prompts", "held_out"}


def _follow(guide: str, root: Path) -> int:
    """Do to a copy of the project what the guide says; return how many lines that took."""
    blocks = re.findall(
        r"^`([\w/.]+)`(, (?:below|in place of) `[^`]+`)?[^\n]*:\n\n```python\n(.*?)```", guide, re.S | re.M
    )
    lines = 0
    for name, where, code in blocks:
        path = root / name
        lines += len(code.splitlines())
        if not where:
            assert not path.exists(), f"{name} is there already"
            path.write_text(code)
            continue
        text, anchor = path.read_text(), where.split("`")[1]
        assert text.count(anchor) == 1, f"{anchor!r} is {text.count(anchor)} times in {name}"
        path.write_text(
            text.replace(
                anchor, code.rstrip("\n") if "in place of" in where else f"{anchor}\n{code.rstrip()}"
            )
        )
    return lines


def test_an_aligner_that_is_added_as_the_guide_says_runs_end_to_end(tmp_path):
    root = tmp_path / "project"
    for package in ("flows", "tasks", "schemas", "rlhf", "recipes"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    assert 20 < _follow(GUIDE.read_text(encoding="utf-8"), root) < 60
    overrides = f"aligners=[{{method: slic, margin: 2.0, {FITTED}}}]"
    summary = _run(root, tmp_path / "home", overrides)
    assert list(summary["evaluation"]) == ["sft", "slic"]
    stage = next(stage for stage in summary["stages"] if stage["name"] == "slic")
    assert stage["metrics"]["loss"] > 0
    assert set(stage["inputs"]) == {"sft", "preferences"}
