"""What has broken before without a word: Prefect against newer libraries, and schedules that never fire."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(
    arguments: list[str], environment: dict[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return json.load(response)


def _until(found: Any, seconds: float, log: Path) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(1)
    pytest.fail(f"waited {seconds} s in vain; {log.name} ends: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run `rlhf ui` on free ports, and yield the environment in which commands find it."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))
    }
    environment |= {"RLHF_HOME": str(home), "PREFECT_WORKER_QUERY_SECONDS": "2"}
    ports = ["--prefect-port", str(_free_port()), "--mlflow-port", str(_free_port())]
    log = home / "ui.log"
    with _process(["-m", "flows.cli", "ui", *ports], environment, log):
        _until(lambda: (home / "servers.json").exists(), 180, log)
        yield environment
    assert not (home / "servers.json").exists()


def _api(environment: dict[str, str]) -> str:
    servers = json.loads((Path(environment["RLHF_HOME"]) / "servers.json").read_text(encoding="utf-8"))
    return str(servers["prefect"])


@pytest.mark.integration
def test_prefects_server_application_imports():
    code = "from prefect.server.api.server import create_app; create_app()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.integration
def test_a_cron_deployment_gets_scheduled_runs(ui):
    log = Path(ui["RLHF_HOME"]) / "ui.log"
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "deploy"],
        env=ui,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    runs = _until(lambda: _ask(f"{_api(ui)}/flow_runs/filter", scheduled), 60, log)
    assert all(run["parameters"]["recipe"] == "helpdesk" for run in runs)


@pytest.mark.e2e
def test_a_worker_runs_a_scheduled_deployment_of_the_micro_recipe(ui, tmp_path):
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    micro = deployments["deployments"][0] | {
        "name": "micro",
        "parameters": {"recipe": "micro"},
        # An interval anchored just ahead comes due at once, where a cron schedule would take up to a minute.
        "schedules": [
            {
                "interval": 3600,
                "anchor_date": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 30)),
            }
        ],
    }
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump(deployments | {"deployments": [micro]}), encoding="utf-8")
    deploy = [sys.executable, "-m", "flows.cli", "deploy", "--file", str(file)]
    done = subprocess.run(deploy, env=ui, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    log = tmp_path / "worker.log"
    finished = {
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}},
        "flows": {"name": {"any_": ["rlhf-recipe"]}},
    }
    with _process(["-m", "flows.cli", "worker"], ui, log):
        runs = _until(lambda: _ask(f"{_api(ui)}/flow_runs/filter", finished), 300, log)
    assert [run["state_type"] for run in runs] == ["COMPLETED"], log.read_text(errors="replace")[-3000:]
    assert runs[0]["auto_scheduled"]
    assert list((Path(ui["RLHF_HOME"]) / "store").rglob("*.json"))
