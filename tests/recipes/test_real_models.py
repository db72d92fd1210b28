"""Recipes for real models run to the end with a random model of the same architecture, one training step per stage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from schemas.config.loading import load_config, shipped_recipes

ROOT = Path(__file__).parents[2]
RECIPES = ["qwen2.5-0.5b", "llama-3-8b", "llama-3-8b-multi", "instructgpt"]
SHOPS = ["kettle", "lamp", "teapot", "chair", "carpet", "shelf", "mirror", "clock"]
TOWNS = [
    "Bern",
    "Oslo",
    "Kyiv",
    "Lima",
    "Rome",
    "Cairo",
    "Quito",
    "Delhi",
    "Paris",
    "Sofia",
    "Tunis",
    "Minsk",
]


def _rows() -> list[dict[str, str]]:
    return [
        {
            "prompt": f"What does a {thing} cost in {town}?",
            "chosen": f"In {town} a {thing} costs {3 * number + 7} euros.",
            "rejected": f"Ask somebody who knows {town}, and buy no {thing}.",
        }
        for number, (thing, town) in enumerate((thing, town) for thing in SHOPS for town in TOWNS)
    ]


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _overrides(name: str, base: Path, folder: Path) -> list[str]:
    """Name what lies here instead of the hub, and cut the time: one step each, short responses, few prompts."""
    rows = _rows()
    chosen = [
        f"base.source={base}", "base.revision=null", "compute.device=cpu", "compute.precision=fp32",
        "compute.threads=1", f"data.folder={folder}", "sft.steps=1", "reward.steps=1",
        "sample.num_prompts=16", "sample.max_new_tokens=4", "evaluate.num_prompts=8", "evaluate.max_new_tokens=4",
        "evaluate.bootstrap_samples=100", "ppo.iterations=1", "ppo.max_new_tokens=4",
    ]  # fmt: skip
    if name == "instructgpt":
        _write(folder / "preferences" / "pairs.jsonl", rows[:48])
        _write(
            folder / "demonstrations" / "answers.jsonl",
            [{"prompt": r["prompt"], "response": r["chosen"]} for r in rows[48:72]],
        )
        _write(folder / "prompts" / "asked.jsonl", [{"prompt": row["prompt"]} for row in rows[72:]])
    else:
        _write(folder / "pairs.jsonl", rows[:72])
        _write(folder / "held.jsonl", [{"prompt": row["prompt"]} for row in rows[72:]])
        chosen += ["data.preferences=[pairs.jsonl]", "data.evaluation=[held.jsonl]"]
    methods = {aligner.method for aligner in load_config(name).aligners}
    if "dpo" in methods:
        chosen.append("dpo.steps=1")
    if load_config(name).aligners[0].vllm_url:  # type: ignore[union-attr]  # the first is PPO in all of them
        chosen.append("ppo.vllm_url=null")  # tests/rlhf/training/test_samplers.py speaks its protocol
    return chosen


def test_every_recipe_that_starts_from_a_real_model_is_run_here():
    assert {name for name in shipped_recipes() if load_config(name).base is not None} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_needs_and_where_its_weights_come_from(name: str):
    text = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    assert "# Hardware:" in text
    assert "# Time:     an estimate" in text
    config = load_config(name)
    assert config.base is not None
    assert config.base.revision is not None
    for section in ("sft", "reward", "evaluate"):
        assert section in yaml.safe_load(text)


@pytest.mark.e2e
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_to_its_report_with_a_random_model_of_its_architecture(
    name: str, base: Path, tmp_path: Path
):
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", name, *_overrides(name, base, tmp_path), "--json"],
        env={**ours, "RLHF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    # 3: the gate refuses what has learnt nothing.
    assert done.returncode == 3, done.stderr[-3000:]
    stages = {stage["name"]: stage["status"] for stage in json.loads(done.stdout)["stages"]}
    assert set(stages.values()) == {"ran"}
    assert {"sft", "reward", "ppo", "evaluate-ppo", "report"} <= set(stages)
