"""Killed at any moment, also in the midst of writing a checkpoint, PPO goes on to the same bits and the same curve."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.integration

WORKER = """
import json, sys, time
from pathlib import Path
import polars as pl
from rlhf.models.precision import Precision
from rlhf.training import checkpoint, ppo
from schemas.config import PPOConfig

sft, reward, out, state, curve, slow = map(Path, sys.argv[1:])
save = checkpoint.save_file

def save_slowly(tensors, path):  # a window that a kill can hit
    if slow.exists():
        (path.parent.parent / "writing").touch()
        time.sleep(0.3)
    save(tensors, path)
    (path.parent.parent / "writing").unlink(missing_ok=True)

checkpoint.save_file = save_slowly
config = PPOConfig(iterations=6, batch_size=8, minibatch_size=4, max_new_tokens=6, learning_rate=1e-3,
                   critic_learning_rate=1e-3, kl={"target": 5.0, "horizon": 16}, guard={"evaluate_every": 1})
prompts = pl.DataFrame({"prompt_id": [str(n) for n in range(5)],
                        "prompt": [[{"role": "user", "content": "hi " * (n + 1)}] for n in range(5)]})
preferences = prompts.with_columns(
    pl.lit("there").alias("chosen"), pl.lit("hi hi").alias("rejected"), pl.lit(True).alias("chosen_finished"),
    pl.lit(True).alias("rejected_finished"), pl.lit(None, pl.Float64).alias("margin"), pl.lit(1.0).alias("weight"))
with curve.open("w") as lines:
    ppo.fit(sft, reward, prompts, config, seed=0, precision=Precision(threads=1, dtype="fp32"), out=out,
            checkpoints=state, preferences=preferences,
            on_step=lambda step: (print(json.dumps([step.step, step.metrics]), file=lines, flush=True)))
"""


def _start(folders: tuple[Path, Path], folder: Path) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    places = (folder / name for name in ("out", "state", "curve", "slow"))
    command = [sys.executable, "-c", WORKER, *map(str, folders), *map(str, places)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def _curve(folder: Path) -> list[str]:
    return [json.loads(line) for line in (folder / "curve").read_text().splitlines()]


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits_and_curve(
    folders: tuple[Path, Path], tmp_path: Path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert _start(folders, whole).wait(timeout=120) == 0
    chance = random.Random(0)

    def kill_once(ready: Path, seconds: float) -> None:
        process = _start(folders, killed)
        deadline = time.monotonic() + 120
        while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL

    state = killed / "state"
    killed.mkdir()
    (killed / "slow").touch()
    kill_once(state / "iteration-000001", chance.uniform(0.0, 0.3))  # anywhere in the second iteration
    (state / "writing").unlink(missing_ok=True)
    kill_once(state / "writing", 0.1)  # in the midst of writing a checkpoint
    assert list(state.glob("partial-*"))
    (state / "writing").unlink()
    kill_once(state / "writing", chance.uniform(0.0, 1.0))
    (killed / "slow").unlink()
    assert 1 <= len(_curve(killed)) < 6
    assert _start(folders, killed).wait(timeout=120) == 0
    assert _curve(killed) == _curve(whole)
    found, expected = (load_file(folder / "out" / "model.safetensors") for folder in (killed, whole))
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)
    assert json.loads((state / "iteration-000006" / "state.json").read_text())["best_iteration"] > 0
    # However often it was killed, one checkpoint is left.
    assert [path.name for path in state.glob("*-*")] == ["iteration-000006"]
