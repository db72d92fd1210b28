"""Servers that go away and come back, a full disk, damaged bytes: nothing is lost, repeated, or taken for whole."""

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from rlhf.adapters.object_store import open_store
from rlhf.adapters.reachable import require_tracking
from schemas.errors import TrackingUnreachable

pytestmark = pytest.mark.e2e


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(*urls: str) -> None:
    deadline = time.monotonic() + 120
    for url in urls:
        while True:
            try:
                require_tracking(url)  # any server with a page /health
                break
            except TrackingUnreachable:
                assert time.monotonic() < deadline, url
                time.sleep(0.3)


def test_training_goes_on_while_mlflow_and_prefect_are_away(
    place: Any, start: Any, quiet_home: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    port, api_port = _free_port(), _free_port()
    url, api = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{api_port}/api"
    home, longer = tmp_path / "home", "ppo.iterations=60"
    env = place.machine(
        tmp_path / "servers", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", NO_PROXY="127.0.0.1"
    )
    servers = {
        "mlflow": (
            *("mlflow", "server", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{tmp_path}/server.db"),
            *("--artifacts-destination", str(tmp_path / "served")),
        ),
        "prefect": ("prefect", "server", "start", "--port", str(api_port), "--no-ui"),
    }

    # The store of the quiet home: every stage but PPO and what follows is done.
    more = {"MLFLOW_TRACKING_URI": url, "PREFECT_API_URL": api, "RLHF_STORE": str(quiet_home / "store")}
    with (
        place.process("mlflow-1", *servers["mlflow"], env=env),
        place.process("prefect-1", *servers["prefect"], env=env),
    ):
        _wait_for(url, api)
        run = start(home, longer, **more)
        run.until("ppo", "step", 3)
    run.until("ppo", "step", 40)
    assert len(list(home.glob("spool/*/*.jsonl"))) == 1
    with (
        place.process("mlflow-2", *servers["mlflow"], env=env),
        place.process("prefect-2", *servers["prefect"], env=env),
    ):
        _wait_for(url, api)
        summary = run.finish()
        client = MlflowClient(url)
        records = {stage["name"]: stage for stage in summary["stages"]}
        assert records["ppo"]["status"] == "ran"
        steps = [point.step for point in client.get_metric_history(records["ppo"]["run_id"], "ppo/kl")]
        assert steps == list(range(1, 61))
        assert {client.get_run(stage["run_id"]).info.status for stage in records.values()} == {"FINISHED"}
        flow_run = client.get_run(summary["run_id"]).data.tags["prefect.flow_run_id"]
        assert place.state(flow_run, api=api) == "Completed"
    assert list(home.glob("spool/*/*.jsonl")) == []


def test_a_store_that_fails_for_good_is_one_clear_error_and_the_run_goes_on_once_it_is_back(
    start: Any, undisturbed: dict[str, Any], bucket: str, breakable: Any, tmp_path: Path
) -> None:
    more = {
        "RLHF_STORE": f"s3://{bucket}",
        "AWS_ENDPOINT_URL": breakable.url,
        "AWS_MAX_ATTEMPTS": "1",
        "RLHF_STORE_PATIENCE": "1",
    }
    run = start(tmp_path, **more)
    run.until("sft", "started")
    breakable.broken = True
    message = run.fail()
    assert message.startswith(f"StoreUnreachable: The bucket {bucket} answered")
    assert len([event for event in run.told if event[:2] == ("sft", "started")]) <= 3
    breakable.broken = False
    again = start(tmp_path, **more)
    summary = again.finish()
    assert {"validate", "pretrain"} <= set(again.stages("reused"))
    assert start.digests(summary) == start.digests(undisturbed)
    assert start.tracked(tmp_path, "RUNNING") == []


def test_bad_data_and_diverged_training_are_not_tried_again(
    start: Any, quiet_home: Path, undisturbed: dict[str, Any]
) -> None:
    run = start(quiet_home, "sft.learning_rate=1e30")
    assert run.fail().startswith("TrainingDiverged")
    assert [event[1] for event in run.told if event[0] == "sft"].count("started") == 1
    run = start(quiet_home, "sft.max_length=8")
    assert run.fail().startswith("DataRejected")
    assert [event[1] for event in run.told if event[0] == "sft"].count("started") == 1


def test_a_full_disk_is_one_clear_error_and_leaves_nothing_that_is_taken_for_whole(
    start: Any, undisturbed: dict[str, Any], small_disk: Path, enlarge: Any, tmp_path: Path
) -> None:
    more = {"RLHF_STORE": str(small_disk / "store")}
    run = start(tmp_path / "home", **more)
    assert run.fail().startswith("DiskFull: ")
    enlarge(small_disk)
    store = open_store(more["RLHF_STORE"], tmp_path / "cache")
    assert store.list_keys(".unfinished") == []
    summary = start(tmp_path / "home", **more).finish()
    assert start.digests(summary) == start.digests(undisturbed)
    assert start.tracked(tmp_path / "home", "RUNNING") == []
