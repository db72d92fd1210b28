"""Workers and cards: a stage by the worker of a pool, workers that are asked to end, slots, queues."""

import json
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.workers import cards, start_command
from schemas.errors import ConfigError

HOLD = """
import sys
import time
from schemas.config import ComputeConfig
from schemas.pipeline import PipelineRun
from tasks.slots import gpu_slots, make_slot

make_slot(sys.argv[3])
run = PipelineRun(run_id="0" * 32, name="micro", seed=0, compute=ComputeConfig(device=sys.argv[1]))
begun = time.monotonic()
with gpu_slots(run, sys.argv[2]):
    print("held after", round(time.monotonic() - begun), flush=True)
    sys.stdin.readline()
"""


def _hold(env: dict[str, str], device: str, stage: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLD, device, stage, env["RLHF_GPU_SLOTS"]]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _line(process: "subprocess.Popen[str]", seconds: float) -> str:
    """Return the next line that a process prints; empty when there is none within that time."""
    assert process.stdout is not None
    return process.stdout.readline() if select.select([process.stdout], [], [], seconds)[0] else ""


@pytest.fixture(scope="module")
def orphaned(place: Any, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[subprocess.Popen[str]]":
    """A process that waits for a slot whose holder has just been killed; the lease ends a minute later."""
    env = place.machine(tmp_path_factory.mktemp("cards"), RLHF_GPU_SLOTS="gpu-here-1")
    holder = _hold(env, "auto", "ppo")
    assert _line(holder, 60).startswith("held")
    holder.kill()
    holder.communicate()
    waiting = _hold(env, "auto", "ppo")
    yield waiting
    waiting.kill()
    waiting.communicate()


def _of_home(home: Path) -> list[int]:
    """Return the processes that have a home."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"RLHF_HOME={home}\0".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


@pytest.fixture
def checkpoints(quiet_home: Path) -> Callable[[], set[Path]]:
    """Return what looks for PPO's checkpoints in the store."""
    return lambda: set((quiet_home / "store").glob("checkpoints/ppo/*"))


@pytest.mark.e2e
def test_a_stage_is_computed_by_a_worker_and_goes_on_with_another_after_one_that_was_told_to_end(
    place: Any,
    start: Any,
    quiet_home: Path,
    undisturbed: dict[str, Any],
    orphaned: Any,
    checkpoints: Callable[[], set[Path]],
    tmp_path: Path,
) -> None:
    here, there, elsewhere = (tmp_path / name for name in ("here", "there", "elsewhere"))
    shared = {
        "RLHF_STORE": str(quiet_home / "store"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{here / 'mlflow.db'}",
    }
    longer = ("ppo.kl_coef=0.65", "ppo.iterations=60")
    before = checkpoints()
    with place.worker("pool-worker", place.machine(there, **shared)) as worker:
        run = start(here, *longer, "compute.stages.ppo.place=pool", **shared)
        place.until(lambda: checkpoints() - before, 120, place.log("pool-worker"))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
        place.until(lambda: not _of_home(there), 30, "the worker's flow ends with it")
    # Prefect takes the order's run for running; whoever ordered it waits.
    assert len(place.running()) == 2
    told = json.loads(place.command(place.machine(here, **shared), "flows.cli", "reap", "--json"))
    assert len(told["flow_runs"]) == 1
    assert run.fail().startswith("LaunchFailed: The run that computed stage ppo ended as Crashed")
    assert place.running() == []
    command = ("flows.cli", "worker", "--gpus", "0", "--queue", "gpu")
    with place.process("pool-worker-2", *command, env=place.machine(elsewhere, **shared)) as worker:
        run = start(here, *longer, "compute.stages.ppo.place=pool", **shared)
        summary = run.finish()
        # What it could not do is the error of the stage here.
        failed = start(
            here,
            "sft.learning_rate=1e30",
            "compute.stages.sft.place=pool",
            **shared,
        ).fail()
        # It is idle now.
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 128 + signal.SIGTERM
        assert _of_home(elsewhere) == []
    assert place.running() == []
    assert failed.startswith("TrainingDiverged")
    assert not list(here.glob("work/*/model"))
    (ppo,) = [found for found in start.tracked(here, "FINISHED") if found.info.run_name == "ppo"]
    assert "continued_from" in ppo.data.tags
    assert ppo.data.metrics["ppo/kl"] == next(
        stage["metrics"]["kl"] for stage in summary["stages"] if stage["name"] == "ppo"
    )
    assert not list(quiet_home.glob("store/orders/ppo/*"))
    for manifest in quiet_home.glob("store/stages/ppo/*.json"):  # it would be re-used
        manifest.unlink()
    alone = start(quiet_home, *longer).finish()
    assert start.digests(summary) == start.digests(alone)
    assert start.metrics(summary) == start.metrics(alone)


@pytest.mark.e2e
def test_a_drained_job_gives_its_run_back_and_the_next_one_goes_on(
    place: Any,
    start: Any,
    quiet_home: Path,
    undisturbed: dict[str, Any],
    checkpoints: Callable[[], set[Path]],
    tmp_path: Path,
) -> None:
    """A node of a cluster is drained: the next job, on an empty disk, goes on.

    What Prefect's Kubernetes worker starts is `prefect flow-run execute` with this variable (infra/kubernetes/job-template.json); here
    it runs as a process, and what the kubelet sends to it is sent by hand.
    """
    shared = {
        "RLHF_STORE": str(quiet_home / "store"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
    }
    pods = [place.machine(tmp_path / name, **shared) for name in ("first", "second")]
    before = checkpoints()
    run = place.start_run(["ppo.kl_coef=0.55", "ppo.iterations=100"])
    execute = ("prefect", "flow-run", "execute", str(run))
    with place.process("drained", *execute, env=pods[0]) as pod:
        place.until(lambda: checkpoints() - before or pod.poll() is not None, 180, place.log("drained"))
        assert pod.poll() is None, place.log("drained")
        pod.send_signal(signal.SIGTERM)
        pod.wait(timeout=60)
    place.reaches(run, "AwaitingRetry", "Scheduled", "Late", log="drained")
    with place.process("moved", *execute, env=pods[1]):
        place.reaches(run, "Completed", log="moved")
    computed = {
        found.info.run_name: found.data.tags
        for found in start.tracked(tmp_path, "FINISHED")
        if "reused_from" not in found.data.tags
    }
    assert not {"pretrain", "sft", "reward", "dpo"} & set(computed)
    assert "continued_from" in computed["ppo"]


@pytest.mark.integration
def test_a_second_stage_waits_for_the_card_and_one_on_the_cpu_does_not(place: Any, tmp_path: Path) -> None:
    env = place.machine(tmp_path, RLHF_GPU_SLOTS="gpu-here-0")
    first = _hold(env, "auto", "ppo")
    assert _line(first, 60).startswith("held")
    waiting, on_cpu, light = _hold(env, "auto", "sft"), _hold(env, "cpu", "ppo"), _hold(env, "auto", "gate")
    for free in (on_cpu, light):
        assert free.communicate("\n", timeout=60)[0].startswith("held")
    # By now it would have it, if it could: the two that were started after it have come and gone.
    assert _line(waiting, 3) == ""
    first.communicate("\n", timeout=60)
    assert _line(waiting, 60).startswith("held")
    waiting.communicate("\n", timeout=60)


@pytest.mark.integration
def test_the_runs_of_an_urgent_queue_come_first(place: Any) -> None:
    """In the order in which the server names them, workers start them."""
    with place.client() as client:
        deployment = client.read_deployment_by_name("rlhf-recipe/helpdesk-nightly")
        client._client.post("/work_pools/rlhf/queues/", json={"name": "urgent", "priority": 1})
        runs = [
            client.create_flow_run_from_deployment(deployment.id, parameters={"recipe": "micro"}, **queue).id
            for queue in ({}, {"work_queue_name": "urgent"})
        ]
        found = client._client.post("/work_pools/rlhf/get_scheduled_flow_runs", json={}).json()
        order = [one["flow_run"]["id"] for one in found]
        for run in runs:
            client.delete_flow_run(run)
    assert order == [str(run) for run in reversed(runs)]


@pytest.mark.integration
def test_a_killed_holder_of_a_card_frees_it_when_its_lease_ends(orphaned: Any) -> None:
    waited = int(_line(orphaned, 120).removeprefix("held after "))
    orphaned.communicate("\n", timeout=60)
    # Prefect's shortest lease is a minute; the holder may have renewed it last a while before.
    assert 20 < waited < 100


def test_each_card_has_a_worker_that_sees_no_other():
    found = cards("0, 2")
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in found.values()] == ["0", "2"]
    assert [environment["RLHF_GPU_SLOTS"] for environment in found.values()] == list(found)
    assert len({name for name in found}) == 2
    for wrong in ("", "0,0", "a", "0,,1"):
        with pytest.raises(ConfigError, match="does not name cards"):
            cards(wrong)
    command = start_command(2, "high")
    assert command[command.index("--limit") + 1] == "2"
    assert command[-2:] == ["--work-queue", "high"]
