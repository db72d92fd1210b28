"""A card has one holder at a time."""

import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.workers import cards, start_command
from schemas.errors import ConfigError

HOLD = """
import sys, time
from schemas.config import ComputeConfig
from schemas.pipeline import PipelineRun
from tasks.slots import gpu_slots, make_slot

make_slot("gpu-here-0")
run = PipelineRun(run_id="0" * 32, name="micro", seed=0, compute=ComputeConfig(device=sys.argv[1]))
with gpu_slots(run, sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def _hold(env: dict[str, str], device: str, stage: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLD, device, stage]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.integration
def test_a_second_stage_waits_for_the_card_and_one_on_the_cpu_does_not(place: Any, tmp_path: Path) -> None:
    env = place.machine(tmp_path, RLHF_GPU_SLOTS="gpu-here-0")
    first = _hold(env, "auto", "ppo")
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    waiting, on_cpu, light = _hold(env, "auto", "sft"), _hold(env, "cpu", "ppo"), _hold(env, "auto", "gate")
    for free in (on_cpu, light):
        assert free.communicate("\n", timeout=60)[0] == "held\n"
    assert waiting.stdout is not None
    # By now it would have it, if it could: the two that were started after it have come and gone.
    assert select.select([waiting.stdout], [], [], 3)[0] == []
    first.communicate("\n", timeout=60)
    assert waiting.stdout.readline() == "held\n"
    waiting.communicate("\n", timeout=60)


def test_each_card_has_a_worker_that_sees_no_other():
    found = cards("0, 2")
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in found.values()] == ["0", "2"]
    assert [environment["RLHF_GPU_SLOTS"] for environment in found.values()] == list(found)
    assert len({name for name in found}) == 2
    for wrong in ("", "0,0", "a", "0,,1"):
        with pytest.raises(ConfigError, match="does not name cards"):
            cards(wrong)
    assert start_command(2, "high")[-4:] == ["--limit", "2", "--work-queue", "high"]
