"""SFT, DPO and the reward model in two processes (gloo, CPU) end where one process with all of each batch ends.

Also with weights, gradients and optimizer state shared out by FSDP2, as infra/accelerate/fsdp.yaml says.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file

from rlhf.models.precision import Precision
from rlhf.training import sft
from schemas.config import SFTConfig
from schemas.errors import ConfigError

FSDP = Path(__file__).parents[3] / "infra" / "accelerate" / "fsdp.yaml"

pytestmark = pytest.mark.integration

FSDP_ON_CPUS = """
# Accelerate allows FSDP on accelerators only; torch's own FSDP2 runs on CPUs, too. The rest is as on GPUs.
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

begin = AcceleratorState.__init__

def begin_sharded(self, *arguments, fsdp_plugin=None, **named):
    begin(self, *arguments, fsdp_plugin=fsdp_plugin, **named)
    if fsdp_plugin is None:  # whoever asks for the state again
        return
    self.fsdp_plugin = fsdp_plugin
    self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP

AcceleratorState.__init__ = begin_sharded

from torch.distributed.fsdp import FSDPModule
from rlhf.training import processes

gather = processes.gather_weights

def count_and_gather(module):
    assert isinstance(module, FSDPModule)
    assert any(p.to_local().numel() < p.numel() for p in module.parameters() if hasattr(p, "to_local"))
    gather(module)

processes.gather_weights = count_and_gather
"""
TRAIN = """
import os
import sys
from pathlib import Path
import polars as pl
from rlhf.models.precision import Precision
from rlhf.training import dpo, reward, sft
from schemas.config import DPOConfig, LoraConfig, RewardConfig, SFTConfig

policy, out, stages = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
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
shown = rows.with_columns(pl.Series("response", answers))
candidates = rows.with_columns(
    pl.Series("responses", [[answer, answer[::-1]] for answer in answers]), pl.Series("finished", [[True, True]] * 6))
runs = {
    "sft": lambda out: sft.fit(policy, shown, SFTConfig(**optimiser), out=out, **common),
    "lora": lambda out: sft.fit(policy, shown, SFTConfig(**optimiser, lora=LoraConfig(rank=2, alpha=4.0)), out=out, **common),
    "dpo": lambda out: dpo.fit(policy, pairs, DPOConfig(**optimiser), out=out, **common),
    "reward": lambda out: reward.fit(
        policy, pairs, None, candidates, RewardConfig(**optimiser), rater_weights={}, out=out, **common),
}
for stage in stages:
    runs[stage](out / stage)
print(len(heard))
"""


STAGES = ("sft", "lora", "dpo", "reward")


def train(
    policy: Path, out: Path, count: int, *stages: str, first: str = "", more: dict[str, str] | None = None
) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = []
    for rank in range(count):
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **(more or {})}
        if count > 1:
            environment |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            }  # fmt: skip
        command = [sys.executable, "-c", first + TRAIN, str(policy), str(out), *stages]
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


@pytest.fixture(scope="module")
def alone(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the whole batches."""
    out = tmp_path_factory.mktemp("one")
    assert train(tiny_policy, out, 1, *STAGES) == ["16"]
    return out


def assert_same(policy: Path, alone: Path, together: Path, stages: tuple[str, ...]) -> None:
    begun = load_file(policy / "model.safetensors")
    for stage in stages:
        one, two = (load_file(out / stage / "model.safetensors") for out in (alone, together))
        assert one.keys() == two.keys()
        moved = [(one[name] - begun[name]).abs().max() for name in one if name in begun]
        assert not moved or max(moved) > 1e-3
        for name in one:
            torch.testing.assert_close(
                two[name], one[name], rtol=0, atol=1e-5, msg=lambda found, stage=stage: f"{stage}: {found}"
            )


def test_two_processes_give_the_update_of_one_with_the_whole_batch(
    tiny_policy: Path, alone: Path, tmp_path: Path
) -> None:
    # The first of the two tells of each step, the other of none.
    assert train(tiny_policy, tmp_path, 2, *STAGES) == ["16", "0"]
    assert_same(tiny_policy, alone, tmp_path, STAGES)


def test_so_do_two_that_share_the_weights_out(tiny_policy: Path, alone: Path, tmp_path: Path) -> None:
    parser = launch_command_parser()
    asked = parser.parse_args(["--config_file", str(FSDP), "--num_processes", "2", "train.py"])
    settled, _, _ = _validate_launch_command(asked)
    set_up = prepare_multi_gpu_env(settled)
    fsdp = {name: value for name, value in set_up.items() if "FSDP" in name}
    assert fsdp["ACCELERATE_USE_FSDP"] == "true"
    stages = ("sft", "lora", "dpo")
    told = train(tiny_policy, tmp_path, 2, *stages, first=FSDP_ON_CPUS, more=fsdp)
    assert told == ["12", "0"]
    assert_same(tiny_policy, alone, tmp_path, stages)


def test_on_a_cpu_nothing_is_shared_out_silently(
    tiny_policy: Path,
    demonstrations: pl.DataFrame,
    fp32: Precision,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    config = SFTConfig(steps=1, batch_size=2)
    with pytest.raises(ConfigError, match="shares nothing out by FSDP on cpu"):
        sft.fit(
            tiny_policy, demonstrations, config, seed=0, precision=fp32, on_step=print, out=tmp_path / "out"
        )
