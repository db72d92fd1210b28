"""A sweep's own run in MLflow, for which no pipeline run answers."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from mlflow import MlflowClient

from schemas.config.loading import load_config
from schemas.sweep import SweepReport
from tasks.reap import reap
from tasks.sweep import sweep_run
from tasks.work import connect_tracking


def _sweep(out: Connection) -> None:
    report = SweepReport(sweep_id="", recipe="micro", knobs=(), objective="ppo/win_rate")
    with sweep_run(load_config("micro"), report) as book:
        out.send(book.report.sweep_id)
        signal.pause()


@pytest.mark.integration
def test_the_run_of_a_sweep_that_is_killed_is_ended_by_whoever_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHF_HOME", str(tmp_path))
    for name in ("RLHF_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    tracking, client = connect_tracking("micro"), MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    told, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_sweep, args=(theirs,))
    process.start()
    assert told.poll(60)
    sweep = told.recv()
    assert reap(tracking).tracked == ()
    assert client.get_run(sweep).info.status == "RUNNING"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert reap(tracking).tracked == (sweep,)
    assert client.get_run(sweep).info.status == "KILLED"
