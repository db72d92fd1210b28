"""Accelerate itself reads the configurations, and what its launcher would make of them is what they say."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

FOLDER = Path(__file__).parents[2] / "infra" / "accelerate"
FILES = sorted(FOLDER.glob("*.yaml"))


def launched(name: str) -> Any:
    words = [
        "--config_file",
        str(FOLDER / name),
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
        "train.py",
    ]
    settled, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    return settled


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_reads_every_word(file: Path) -> None:
    read = load_config_from_file(str(file))  # it refuses keys that it does not know
    known = vars(launched(file.name))
    for section in (read.fsdp_config, read.deepspeed_config):  # of these it takes any
        assert set(section) <= set(known)
    written = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert (read.num_machines, read.mixed_precision) == (1, "no")
    assert read.distributed_type.value == written["distributed_type"]


def test_each_starts_what_it_is_named_for() -> None:
    assert [file.stem for file in FILES] == ["ddp", "deepspeed", "fsdp"]
    ddp, fsdp, deepspeed = (launched(f"{name}.yaml") for name in ("ddp", "fsdp", "deepspeed"))
    assert (ddp.multi_gpu, ddp.use_fsdp, ddp.use_deepspeed) == (True, False, False)
    assert (fsdp.use_fsdp, fsdp.use_deepspeed) == (True, False)
    assert (deepspeed.use_deepspeed, deepspeed.zero_stage) == (True, 2)
    shared = prepare_multi_gpu_env(fsdp)
    assert (shared["ACCELERATE_USE_FSDP"], shared["FSDP_VERSION"]) == ("true", "2")
    assert shared["FSDP_RESHARD_AFTER_FORWARD"] == "true"
