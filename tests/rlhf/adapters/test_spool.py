"""Values that MLflow's server did not take at once arrive later: all of them, each once."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from rlhf.adapters import spool
from rlhf.adapters.tracking import TrackedRun, connect
from schemas.errors import TrackingUnreachable
from schemas.reports import MetricPoint
from schemas.settings import Settings

pytestmark = pytest.mark.integration

DIES = """
import sys, time
from pathlib import Path
from mlflow import MlflowClient
from rlhf.adapters.tracking import TrackedRun

run = TrackedRun(MlflowClient(sys.argv[1]), sys.argv[2], spool=Path(sys.argv[3]), patience=0)
run.log_metrics({"killed/loss": 1.0}, 1)
run.log_metrics({"killed/loss": 2.0}, 2)
print("waiting", flush=True)
time.sleep(60)
"""


class Server:
    """An MLflow server that can be stopped and started again on the same database."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._folder, self._port = folder, port

    @contextmanager
    def up(self) -> Iterator[None]:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", str(self._folder / "served")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self._folder / "server.log").open("a") as log:
            process = subprocess.Popen(
                command, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True
            )
        try:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                try:
                    spool.require_tracking(self.url)
                    break
                except TrackingUnreachable:
                    time.sleep(0.2)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def test_an_outage_loses_and_repeats_nothing(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(spool, "_FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(spool, "_PAUSE_SECONDS", 0.0)
    server = Server(tmp_path, free_port)
    settings = Settings(home=tmp_path / "home", tracking_uri=server.url, tracking_patience=60)
    with server.up():
        tracking = connect(settings, "helpdesk")
        runs = [tracking.start_run(name, parent=None, tags={}) for name in ("back", "never back", "killed")]
        for run in runs[:2]:
            run.log_metrics({"sft/loss": 1.0}, 1)
    for run in runs[:2]:
        for step in (2, 3):
            run.log_metrics({"sft/loss": float(step)}, step)
    runs[1].finish("FINISHED")
    waiting = settings.home / "spool" / tracking.identity
    assert len(list(waiting.glob("*.jsonl"))) == 2
    child = [sys.executable, "-c", DIES, server.url, runs[2].run_id, str(waiting)]
    with subprocess.Popen(child, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.kill()
    # A batch that had arrived although its answer was lost is sent again.
    for path in waiting.glob(f"{runs[1].run_id}-*"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([*lines, lines[0], '{"key": "sft/lo']))
    with server.up():
        client = MlflowClient(server.url)
        # The file of a living process is left to it.
        connect(settings, "helpdesk")
        assert [path.name.partition("-")[0] for path in waiting.glob("*.jsonl")] == [runs[0].run_id]
        runs[0].log_metrics({"sft/loss": 4.0}, 4)
        runs[0].set_tags({"waited": "for the server"})
        runs[0].finish("FINISHED")
        assert list(waiting.iterdir()) == []

        def curve(run: TrackedRun, key: str) -> list[tuple[int, float]]:
            return [(point.step, point.value) for point in client.get_metric_history(run.run_id, key)]

        assert curve(runs[0], "sft/loss") == [(step, float(step)) for step in (1, 2, 3, 4)]
        assert curve(runs[1], "sft/loss") == [(step, float(step)) for step in (1, 2, 3)]
        assert curve(runs[2], "killed/loss") == [(1, 1.0), (2, 2.0)]
        status = [client.get_run(run.run_id).info.status for run in runs]
        assert status == ["FINISHED", "FINISHED", "RUNNING"]
    assert "no value was lost" in caplog.text


def test_a_full_disk_under_the_database_stops_no_training_and_loses_no_value(
    tmp_path: Path, small_disk: Path, enlarge: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(spool, "_PAUSE_SECONDS", 0.0)
    enlarge(small_disk)
    settings = Settings(home=tmp_path, tracking_uri=f"sqlite:///{small_disk}/mlflow.db", tracking_patience=60)
    tracking = connect(settings, "helpdesk")
    run = tracking.start_run("sft", parent=None, tags={})
    run.log_metrics({"sft/loss": 1.0}, 1)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "rest").write_bytes(bytes(free))
    # As many as do not fit into what is left of the database's own pages.
    run.log_points([MetricPoint(key=f"sft/{number}", value=1.0, step=1) for number in range(2000)])
    assert len(list((tmp_path / "spool" / tracking.identity).glob("*.jsonl"))) == 1
    run.log_metrics({"sft/loss": 2.0}, 2)
    begun = time.monotonic()
    with pytest.raises(TrackingUnreachable, match="disk is full"):
        run.describe("x" * 50_000)
    assert time.monotonic() - begun < 30  # patience is for servers that come back by themselves
    (small_disk / "rest").unlink()
    run.log_metrics({"sft/loss": 3.0}, 3)
    run.finish()
    client = MlflowClient(settings.tracking_uri)
    points = [(point.step, point.value) for point in client.get_metric_history(run.run_id, "sft/loss")]
    assert points == [(1, 1.0), (2, 2.0), (3, 3.0)]
    found = client.get_run(run.run_id)
    assert (len(found.data.metrics), found.info.status) == (2001, "FINISHED")
    assert list((tmp_path / "spool").glob("*/*.jsonl")) == []


def test_a_call_that_is_not_a_value_waits_for_the_server(
    tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = TrackedRun(MlflowClient(f"http://127.0.0.1:{free_port}"), "0" * 32, spool=tmp_path, patience=3)
    begun = time.monotonic()
    with pytest.raises(TrackingUnreachable):
        run.set_tags({"a": "b"})
    assert 3 <= time.monotonic() - begun < 15
