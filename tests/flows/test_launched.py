"""A stage in processes of `accelerate launch`: the same result, its progress, its errors, and no process left behind."""

import os
import signal
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
TWO = ("compute.stages.ppo.place=launch", "compute.stages.ppo.processes=2")


@pytest.fixture
def store(quiet_home: Path, undisturbed: dict[str, Any]) -> str:
    """The store in which every stage but PPO with other settings is done."""
    return str(quiet_home / "store")


def _launched(folder: str) -> list[int]:
    """Return the processes that have a folder among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if folder.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _path(summary: dict[str, Any], output: str) -> Path:
    (ppo,) = [stage for stage in summary["stages"] if stage["name"] == "ppo"]
    return Path(unquote(urlsplit(ppo["outputs"][output]["uri"]).path))


def test_two_launched_processes_give_what_one_gives(
    start: Any, quiet_home: Path, store: str, tmp_path: Path
) -> None:
    configuration = f"compute.stages.ppo.accelerate={ROOT / 'infra' / 'accelerate' / 'ddp.yaml'}"
    run = start(tmp_path / "home", "ppo.kl_coef=0.6", *TWO, configuration, RLHF_STORE=store)
    together = run.finish()
    for manifest in Path(store).glob("stages/ppo/*.json"):  # it would be re-used
        manifest.unlink()
    alone = start(quiet_home, "ppo.kl_coef=0.6").finish()
    # Its steps are told as they happen, by the first of the two only.
    assert [event[2] for event in run.told if event[:2] == ("ppo", "step")] == [1, 2]
    one, two = (load_file(_path(found, "model") / "model.safetensors") for found in (alone, together))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-4)
    said = [pl.read_parquet(_path(found, "rollouts"))["response"].to_list() for found in (alone, together)]
    assert said[0] == said[1]
    (ppo,) = [found for found in start.tracked(tmp_path / "home", "FINISHED") if found.info.run_name == "ppo"]
    assert ppo.data.metrics["ppo/kl"] == pytest.approx(
        next(stage["metrics"]["kl"] for stage in alone["stages"] if stage["name"] == "ppo"), abs=1e-4
    )


def test_an_error_in_a_launched_process_is_the_error_of_the_stage(
    start: Any, store: str, tmp_path: Path
) -> None:
    run = start(
        tmp_path / "home",
        "sft.learning_rate=1e30",
        *(one.replace("ppo", "sft") for one in TWO),
        RLHF_STORE=store,
    )
    assert run.fail().startswith("TrainingDiverged")
    assert _launched(str(tmp_path)) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_launched_processes_end_with_the_run(
    start: Any, store: str, tmp_path: Path, number: signal.Signals
) -> None:
    run = start(tmp_path / "home", "ppo.iterations=400", *TWO, RLHF_STORE=store)
    run.until("ppo", "step", 3)
    assert len(_launched(str(tmp_path / "home"))) >= 3  # the launcher and its two
    run.kill(number)
    deadline = time.monotonic() + 20
    while _launched(str(tmp_path / "home")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _launched(str(tmp_path / "home")) == []
    if number == signal.SIGTERM:
        assert list(Path(store).glob("checkpoints/ppo/*.json"))


def test_a_launched_process_that_is_killed_is_told_with_its_last_lines(
    start: Any, store: str, tmp_path: Path
) -> None:
    run = start(tmp_path / "home", "ppo.iterations=400", *TWO, RLHF_STORE=store)
    run.until("ppo", "step", 2)
    for pid in _launched(str(tmp_path / "home")):
        os.kill(pid, signal.SIGKILL)
    assert run.fail().startswith("LaunchFailed: The processes of stage ppo ended with")
