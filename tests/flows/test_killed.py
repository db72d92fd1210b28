"""SIGKILL and SIGTERM, in every stage: the same command goes on, repeats nothing, and ends with the same bits."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rlhf.adapters.object_store import open_store
from schemas.refs import Checkpoint

pytestmark = pytest.mark.e2e


def test_a_run_that_is_killed_in_every_stage_repeats_nothing_and_ends_with_the_same_bits(
    place: Any, start: Any, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    seconds = {stage["name"]: stage["seconds"] for stage in undisturbed["stages"]}
    chance, done = random.Random(0), set[str]()
    for stage in seconds:
        run = start(tmp_path)
        run.until(stage, "started")
        time.sleep(chance.uniform(0.1, 0.9) * seconds[stage])
        assert run.kill(signal.SIGKILL) == -signal.SIGKILL
        assert done <= set(run.stages("reused"))
        done |= set(run.stages("finished")) - start.ALWAYS_RUN
    last = start(tmp_path)
    summary = last.finish()
    assert done <= set(last.stages("reused"))
    assert start.digests(summary) == start.digests(undisturbed)
    assert start.metrics(summary) == start.metrics(undisturbed)
    assert summary["promotion"]["versions"] == undisturbed["promotion"]["versions"]
    # No run is left open, here or in Prefect.
    assert start.tracked(tmp_path, "RUNNING") == []
    flow_runs = {
        run.data.tags["prefect.flow_run_id"] for run in start.tracked(tmp_path, "KILLED", "FINISHED")
    }
    assert len(flow_runs) == len(seconds) + 1
    assert {place.state(name) for name in flow_runs} == {"Crashed", "Completed"}


def test_a_run_that_is_asked_to_end_keeps_its_checkpoint_and_says_so_everywhere(
    place: Any, start: Any, quiet_home: Path, undisturbed: dict[str, Any]
) -> None:
    processes = quiet_home / "store/processes"
    before = set(processes.glob("*"))  # of those that other tests have killed
    run = start(quiet_home, "ppo.iterations=400")
    run.until("ppo", "step", 3)
    begun = time.monotonic()
    assert run.kill(signal.SIGTERM) == 128 + signal.SIGTERM
    assert time.monotonic() - begun < 30
    ended = start.tracked(quiet_home, "KILLED")
    assert {found.info.run_name for found in ended} == {"micro", "ppo"}
    assert place.state(ended[0].data.tags["prefect.flow_run_id"]) == "Cancelled"
    assert list((quiet_home / "store/checkpoints/ppo").glob("*.json"))
    assert set(processes.glob("*")) <= before
    assert _in_session(run.process.pid) == []


def test_another_machine_goes_on_where_a_dead_one_stopped(
    place: Any, start: Any, quiet_home: Path, undisturbed: dict[str, Any], bucket: str, tmp_path: Path
) -> None:
    store = open_store(f"s3://{bucket}", tmp_path / "cache")
    shared, longer = {"RLHF_STORE": f"s3://{bucket}"}, "ppo.iterations=40"
    run = start(tmp_path / "one", longer, **shared)
    run.until("ppo", "step", 3)
    assert run.kill(signal.SIGKILL) == -signal.SIGKILL
    (record,) = store.list_keys("checkpoints/ppo")
    kept = Checkpoint.model_validate_json(store.read(record) or b"").name
    other = start(tmp_path / "two", longer, **shared)
    summary = other.finish()
    assert {"pretrain", "sft", "reward"} <= set(other.stages("reused"))
    (ppo,) = [found for found in start.tracked(tmp_path / "two", "FINISHED") if found.info.run_name == "ppo"]
    assert ppo.data.tags["continued_from"] == kept
    whole = start(quiet_home, longer).finish()
    assert start.digests(summary) == start.digests(whole)
    assert start.metrics(summary) == start.metrics(whole)
    # What is not needed any more is gone.
    assert store.list_keys("checkpoints") == []


def test_of_equal_runs_one_computes_and_different_ones_do_not_disturb_each_other(
    place: Any, start: Any, quiet_home: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    runs = [start(tmp_path, *more) for more in ((), (), ("ppo.kl_coef=0.7",))]
    summaries = [run.finish() for run in runs]
    computed = [set(run.stages("finished")) - start.ALWAYS_RUN for run in runs]
    assert not computed[0] & computed[1]
    assert computed[0] | computed[1] | computed[2] == set(start.metrics(undisturbed))
    assert computed[2] >= {"ppo", "evaluate-ppo", "gate"}
    other = start(quiet_home, "ppo.kl_coef=0.7").finish()
    for found, alone in zip(summaries, (undisturbed, undisturbed, other), strict=True):
        assert start.digests(found) == start.digests(alone)
        assert start.metrics(found) == start.metrics(alone)
    versions = [summary["promotion"]["versions"] for summary in summaries]
    assert versions[0] == versions[1]
    assert len({*versions[0].values(), *versions[2].values()}) == 3  # they share DPO's model


def _in_session(leader: int | None) -> list[int]:
    """Return the processes that a run has started and left."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found
