"""A node of a cluster is drained: its job gives the run back, and the next job, on an empty disk, goes on.

What Prefect's Kubernetes worker starts is `prefect flow-run execute` with this variable (infra/kubernetes/job-template.json); here it runs
as a process, and what the kubelet sends to it is sent by hand.
"""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_a_drained_job_gives_its_run_back_and_the_next_one_goes_on(place: Any, tmp_path: Path) -> None:
    shared = {
        "RLHF_STORE": str(tmp_path / "store"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR": "reschedule",
    }
    pods = [place.machine(tmp_path / name, **shared) for name in ("first", "second")]
    run = place.start_run(["pretrain.steps=25"])
    execute = ("prefect", "flow-run", "execute", str(run))

    def finished() -> dict[str, str]:
        manifests = sorted((tmp_path / "store" / "stages").glob("*/*.json"))
        return {path.parent.name: path.read_text(encoding="utf-8") for path in manifests}

    with place.process("drained", *execute, env=pods[0]) as pod:
        deadline = time.monotonic() + 180
        while "sft" not in finished():
            assert pod.poll() is None, place.log("drained")
            assert time.monotonic() < deadline, place.log("drained")
            time.sleep(0.1)
        pod.send_signal(signal.SIGTERM)
        pod.wait(timeout=60)
    before = finished()
    assert "reward" not in before, "the run was faster than the signal"
    place.reaches(run, "AwaitingRetry", "Scheduled", "Late", log="drained")
    with place.process("moved", *execute, env=pods[1]):
        place.reaches(run, "Completed", log="moved")
    after = finished()
    assert {"reward", "ppo", "dpo", "gate"} <= set(after)
    # What was finished before was not computed again: its manifest would name another run.
    assert {name: json.loads(text)["record"]["run_id"] for name, text in after.items() if name in before} == {
        name: json.loads(text)["record"]["run_id"] for name, text in before.items()
    }
