"""`rlhf evaluate-reward` as a person types it, on our models and on others."""

import json
import subprocess
import sys

import polars as pl
import pytest

from rlhf.models.loading import load_tokenizer
from rlhf.models.precision import Precision
from rlhf.models.reward import RewardModel
from rlhf.training.reward import fit
from schemas.config import EnsembleConfig, RewardConfig

pytestmark = pytest.mark.integration


def _rlhf(*arguments, home):
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", "evaluate-reward", *map(str, arguments)],
        env={"PATH": "/usr/bin:/bin", "RLHF_HOME": str(home), "PYTHONPATH": ":".join(sys.path), "HOME": str(home)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def benchmark(tmp_path):
    """RewardBench's columns; the polite answer is right in one subset and wrong in the other."""
    rows = [
        {
            "prompt": f"What does kettle {number} cost?",
            "chosen": "Thank you for asking." if number % 2 else f"{number} euros",
            "rejected": f"{number} euros" if number % 2 else "Thank you for asking.",
            "subset": "polite" if number % 2 else "short",
        }
        for number in range(24)
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "bench.parquet")
    return tmp_path / "bench.parquet"


@pytest.fixture
def polite(tiny_policy, tmp_path):
    """An ensemble that likes politeness."""
    preferences = pl.DataFrame(
        {
            "prompt_id": [str(number) for number in range(20)],
            "prompt": [
                [{"role": "user", "content": f"What does kettle {number} cost?"}] for number in range(20)
            ],
            "chosen": ["Thank you for asking."] * 20,
            "rejected": [f"{number} euros" for number in range(20)],
            "chosen_finished": [True] * 20,
            "rejected_finished": [True] * 20,
            "margin": pl.Series([None] * 20, dtype=pl.Float64),
            "weight": [1.0] * 20,
        }
    )
    candidates = preferences.select(
        "prompt_id", "prompt",
        responses=pl.concat_list("chosen", "rejected"), finished=pl.lit([True, True]),
    )  # fmt: skip
    fit(
        tiny_policy, preferences, None, candidates,
        RewardConfig(steps=40, batch_size=4, learning_rate=5e-3, max_length=64, ensemble=EnsembleConfig(size=2)),
        rater_weights={}, seed=0, precision=Precision(threads=1, dtype="fp32"), on_step=lambda _: None,
        out=tmp_path / "polite",
    )  # fmt: skip
    return tmp_path / "polite"


def test_accuracy_by_subset_of_our_own_model(polite, benchmark, tmp_path):
    done = _rlhf(polite, "--data", benchmark, "--json", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pairs"] == 24
    slices = {
        piece["name"]: piece["accuracy"]["value"] for piece in found["slices"] if piece["by"] == "subset"
    }
    assert slices == {"polite": 1.0, "short": 0.0}
    assert found["accuracy"]["value"] == 0.5
    assert found["longer_baseline"]["value"] == 0.5
    assert found["disagreement"] is not None
    assert len(found["mistakes"]) == 12
    said = _rlhf(polite, "--data", benchmark, home=tmp_path / "home").stdout
    assert "subset polite" in said
    assert "100.0%" in said


def test_a_model_of_other_origin_gets_the_same_table(tiny_policy, benchmark, tmp_path):
    plain = tmp_path / "plain"
    RewardModel.from_policy(tiny_policy, seed=0).model.save_pretrained(plain)
    load_tokenizer(tiny_policy).save_pretrained(plain)
    done = _rlhf(plain, "--data", benchmark, "--json", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pairs"] == 24
    assert found["disagreement"] is None


def test_mistakes_of_the_user_are_one_line(polite, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"x": 1}\n')
    for arguments in (
        (polite, "--data", tmp_path / "bad.jsonl"),
        (polite, "--data", tmp_path / "absent.jsonl"),
        (polite, "--data", tmp_path / "bad.jsonl", "--as", "corpus"),
    ):
        done = _rlhf(*arguments, home=tmp_path / "home")
        assert done.returncode == 2
        assert done.stderr.strip().splitlines()[-1].startswith("error: ")
        assert "Traceback" not in done.stderr
