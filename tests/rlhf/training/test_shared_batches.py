"""SFT, DPO and the reward model in two processes (gloo, CPU) end where one process with all of each batch ends."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.integration

TRAIN = """
import os
import sys
from pathlib import Path
import polars as pl
from rlhf.models.precision import Precision
from rlhf.training import dpo, reward, sft
from schemas.config import DPOConfig, RewardConfig, SFTConfig

policy, out = Path(sys.argv[1]), Path(sys.argv[2])
prompts = [[{"role": "user", "content": "hi " * (row + 1)}] for row in range(6)]
others = ["no", "go away now", "ask the user", "nine euros", "kind", "what is open"]
answers = ["hi there", "good day", "hi", "thank you for asking", "we are open", "the kettle"]
heard = []
common = dict(seed=0, precision=Precision(threads=1, dtype="fp32"), on_step=heard.append)
# One process takes each batch in the two halves that two processes take: where gradients cancel to nothing but rounding,
# Adam would make large differences of another order of the same sum.
halves = None if "WORLD_SIZE" in os.environ else 2
optimiser = dict(steps=4, batch_size=4, micro_batch_size=halves, learning_rate=1e-3)
rows = pl.DataFrame({"prompt_id": [str(row) for row in range(6)], "prompt": prompts})
pairs = rows.with_columns(
    pl.Series("chosen", answers), pl.Series("rejected", others), pl.lit(True).alias("chosen_finished"),
    pl.lit(True).alias("rejected_finished"), pl.lit(None, pl.Float64).alias("margin"),
    pl.Series("weight", [1.0, 0.5, 1.0, 2.0, 1.0, 0.5]))
sft.fit(policy, rows.with_columns(pl.Series("response", answers)), SFTConfig(**optimiser), out=out / "sft", **common)
dpo.fit(policy, pairs, DPOConfig(**optimiser), out=out / "dpo", **common)
candidates = rows.with_columns(
    pl.Series("responses", [[answer, answer[::-1]] for answer in answers]), pl.Series("finished", [[True, True]] * 6))
reward.fit(policy, pairs, None, candidates, RewardConfig(**optimiser), rater_weights={}, out=out / "reward", **common)
print(len(heard))
"""


def train(policy: Path, out: Path, count: int) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = []
    for rank in range(count):
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        if count > 1:
            environment |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            }  # fmt: skip
        command = [sys.executable, "-c", TRAIN, str(policy), str(out)]
        begun.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    told = []
    for process in begun:
        output, complaint = process.communicate(timeout=240)
        assert process.returncode == 0, complaint
        told.append(output.split()[-1])
    return told


def test_two_processes_give_the_update_of_one_with_the_whole_batch(tiny_policy: Path, tmp_path: Path) -> None:
    assert train(tiny_policy, tmp_path / "one", 1) == ["12"]
    # The first of the two tells of each step, the other of none.
    assert train(tiny_policy, tmp_path / "two", 2) == ["12", "0"]
    begun = load_file(tiny_policy / "model.safetensors")
    for stage in ("sft", "dpo", "reward"):
        one, two = (load_file(tmp_path / count / stage / "model.safetensors") for count in ("one", "two"))
        assert one.keys() == two.keys()
        moved = [(one[name] - begun[name]).abs().max() for name in one if name in begun]
        assert not moved or max(moved) > 1e-3
        for name in one:
            torch.testing.assert_close(
                two[name], one[name], rtol=0, atol=1e-5, msg=lambda found, stage=stage: f"{stage}: {found}"
            )
