"""Two processes (gloo, CPU) end where one process with all of the batch ends."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from rlhf.training import processes
from rlhf.training.rollout import minibatches
from schemas.errors import ConfigError

TRAIN = """
import sys
from pathlib import Path
import polars as pl
from rlhf.models.precision import Precision
from rlhf.training import ppo, processes
from schemas.config import LoraConfig, PPOConfig

sft, reward, out = map(Path, sys.argv[1:4])
prompts = pl.DataFrame(
    {"prompt_id": [str(row) for row in range(5)],
     "prompt": [[{"role": "user", "content": "hi " * (row + 1)}] for row in range(5)]}
)
config = PPOConfig(
    iterations=2, batch_size=10, minibatch_size=5, max_new_tokens=6, learning_rate=1e-3, critic_learning_rate=1e-3,
    target_kl=None, warmup_iterations=0, shared_trunk="shared" in sys.argv,
    lora=LoraConfig(rank=2, alpha=4.0) if "lora" in sys.argv else None,
)
heard = []
fitted = ppo.fit(
    sft, reward, prompts, config, seed=0, precision=Precision(threads=1, dtype="fp32"), on_step=heard.append, out=out
)
assert len(heard) == (2 if processes.is_first() else 0)
fitted.rollouts.write_parquet(f"{out}-{processes.number()}-{processes.share(processes.number()).start}.parquet")
"""


def train(folders: tuple[Path, Path], out: Path, *extra: str, count: int) -> None:
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
        command = [sys.executable, "-c", TRAIN, *map(str, folders), str(out), *extra]
        begun.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in begun:
        _, complaint = process.communicate(timeout=180)
        assert process.returncode == 0, complaint


@pytest.mark.integration
@pytest.mark.parametrize("extra", [(), ("lora", "shared")])
def test_two_processes_give_the_update_of_one_with_the_whole_batch(
    folders: tuple[Path, Path], tmp_path: Path, extra: tuple[str, ...]
):
    train(folders, tmp_path / "one", *extra, count=1)
    train(folders, tmp_path / "two", *extra, count=2)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    begun = load_file(folders[0] / "model.safetensors")
    assert max((one[name] - begun[name]).abs().max() for name in one) > 1e-3
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)
    # Both sampled the very same responses, and each of the two knows all of them.
    tables = [tmp_path / name for name in ("one-1-0.parquet", "two-2-0.parquet", "two-2-1.parquet")]
    responses = [pl.read_parquet(table)["response"].to_list() for table in tables]
    assert responses[0] == responses[1] == responses[2]


def test_one_process_has_it_all():
    assert processes.number() == 1
    assert processes.is_first()
    items = list(range(7))
    assert items[processes.share(7)] == processes.dealt(items) == processes.together(items) == items
    layer = torch.nn.Linear(2, 1)
    layer.weight.grad = torch.ones(1, 2)
    processes.add_up_gradients(layer)
    assert layer.weight.grad.tolist() == [[1.0, 1.0]]
    assert layer.bias.grad is None


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_a_method_that_needs_all_weights_refuses_to_share_them_out(
    kind: str, monkeypatch: pytest.MonkeyPatch
):
    assert processes.join("cpu", whole="ppo") == torch.device("cpu")
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    assert processes.join("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=f"ppo cannot share weights out.*{kind}"):
        processes.join("cpu", whole="ppo")


@pytest.mark.parametrize("most", [None, 3])
def test_a_minibatch_has_a_micro_batch_for_each_process(most: int | None):
    plan = minibatches(
        list(range(1, 9)), minibatch_size=4, micro_batch_size=most, at_least=4,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert [len(minibatch) for minibatch in plan] == [4, 4]
