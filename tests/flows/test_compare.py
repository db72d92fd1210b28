"""A head-to-head as its users run it: two seeds of several aligners, ranked; and what a sweep over beta pays for."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
ALIGNERS = (
    "aligners=[{method: dpo, steps: 5, batch_size: 8}, {method: best_of_n, n: 4}, "
    "{method: rejection_sampling, rounds: 2, num_prompts: 16, n: 4, steps: 3, batch_size: 8, max_new_tokens: 16}]"
)


def _rlhf(home: Path, *arguments: str, code: int = 0) -> Any:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--json"],
        env={**ours, "RLHF_HOME": str(home)}, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def swept(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = _rlhf(home, "sweep", "micro", "--seeds", "2", "--set", ALIGNERS)
    return found


def test_aligners_are_ranked_over_seeds_with_what_each_of_them_took(home, swept):
    found = _rlhf(home, "compare", swept["sweep_id"])
    assert (found["unit"], found["units"], found["seeds"], found["measure"]) == ("seed", 2, [0, 1], "gold")
    policies = {one["name"]: one for one in found["policies"]}
    assert set(policies) == {"sft", "dpo", "best_of_n", "rejection_sampling"}
    values = [one["value"]["value"] for one in found["policies"]]
    assert values == sorted(values, reverse=True)
    for name, one in policies.items():
        golds = [row["metrics"][f"{name}/gold"] for row in swept["rows"]]
        assert one["value"]["value"] == pytest.approx(sum(golds) / 2, abs=1e-9)
    assert len(found["pairs"]) == 6
    spent = {name: one["spent"] for name, one in policies.items()}
    assert spent["best_of_n"]["gradient_tokens"] == spent["best_of_n"]["sampled_tokens"] == 0
    assert policies["best_of_n"]["tokens_per_answer"] == pytest.approx(
        4 * policies["best_of_n"]["measures"]["length"]
    )
    assert spent["dpo"]["gradient_tokens"] > 0 == spent["dpo"]["sampled_tokens"]
    assert 2 * 16 * 4 <= spent["rejection_sampling"]["sampled_tokens"] <= 2 * 16 * 4 * 16
    assert spent["rejection_sampling"]["seconds"] > 0
    assert {"sample", "reward", "reference"} <= set(found["shared"])
    assert "<svg" in Path(found["picture"]).read_text(encoding="utf-8")
    assert any("cannot be told apart" in sentence for sentence in found["sentences"])


def test_one_run_is_compared_by_its_prompts_and_another_setting_is_refused(home, swept):
    first, second = (row["run_id"] for row in swept["rows"])
    found = _rlhf(home, "compare", first, "--by", "win_rate")
    assert (found["unit"], found["units"], found["measure"]) == ("prompt", 16, "win_rate")
    sft = next(one for one in found["policies"] if one["name"] == "sft")
    assert sft["value"]["value"] == 0.5
    assert "twice" in _rlhf(home, "compare", first, first, code=2)["error"]
    assert "no run" in _rlhf(home, "compare", "nothing", code=2)["error"]
    other = _rlhf(home, "run", "micro", ALIGNERS, "dpo.beta=0.4", "seed=1", code=3)
    # Another beta trains DPO again, and asks the reference for nothing.
    statuses = {stage["name"]: stage["status"] for stage in other["stages"]}
    assert (statuses["reference"], statuses["dpo"], statuses["rejection_sampling"]) == (
        "reused",
        "ran",
        "reused",
    )
    assert set(other["promotion"]["versions"]) == {"dpo", "rejection_sampling"}
    assert "dpo.beta" in _rlhf(home, "compare", first, other["run_id"], code=2)["error"]
    assert second != other["run_id"]
