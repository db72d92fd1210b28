"""What has broken before without a word: Prefect against newer libraries, and schedules that never fire."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

ROOT = Path(__file__).parents[1]
T = TypeVar("T")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _start(arguments: list[str], environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    # A shell that starts the tests in the background makes them ignore Ctrl-C, and what they start as well.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *arguments],
                env=environment,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _process(
    arguments: list[str], environment: dict[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    process = _start(arguments, environment, log)
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


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return json.load(response)


def _until(
    found: Callable[[], T], seconds: float, log: Path, process: "subprocess.Popen[bytes] | None" = None
) -> T:
    """Return what is found, once it is true; fail when time is up, or the process that would make it so is gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        if value := found():
            return value
        time.sleep(0.5)
    pytest.fail(f"waited {seconds} s in vain; {log.name} ends: {log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run `rlhf ui` on free ports, and yield the environment in which commands find it."""
    home = tmp_path_factory.mktemp("home")
    foreign = ("PREFECT_", "MLFLOW_", "RLHF_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    environment |= {"RLHF_HOME": str(home), "PREFECT_WORKER_QUERY_SECONDS": "2", "NO_PROXY": "127.0.0.1"}
    ports = ["--prefect-port", str(_free_port()), "--mlflow-port", str(_free_port())]
    log = home / "ui.log"
    with _process(["ui", *ports], environment, log) as process:
        _until((home / "servers.json").exists, 180, log, process)
        yield environment
        servers = _servers(environment)
    assert not (home / "servers.json").exists()
    assert [url for url in servers.values() if _listens(url)] == []


def _servers(environment: dict[str, str]) -> dict[str, str]:
    file = Path(environment["RLHF_HOME"]) / "servers.json"
    servers: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return servers


def _log(environment: dict[str, str]) -> Path:
    return Path(environment["RLHF_HOME"]) / "ui.log"


@pytest.mark.integration
def test_prefects_server_application_imports():
    code = "from prefect.server.api.server import create_app; create_app()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.integration
def test_ui_serves_the_pages_of_both(ui):
    servers = _servers(ui)
    for page in (servers["prefect"].removesuffix("/api"), servers["mlflow"]):
        with urllib.request.urlopen(page, timeout=30) as response:  # noqa: S310
            assert response.status == 200
            assert b"<html" in response.read().lower()


@pytest.mark.integration
def test_deploy_registers_prefect_yaml_and_its_cron_deployments_get_scheduled_runs(ui):
    _run(["deploy"], ui)
    api = _servers(ui)["prefect"]
    wanted = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    found = {deployment["name"]: deployment for deployment in _ask(f"{api}/deployments/filter", {})}
    assert set(found) == {deployment["name"] for deployment in wanted}
    for deployment in wanted:
        crons = [schedule["schedule"]["cron"] for schedule in found[deployment["name"]]["schedules"]]
        assert crons == [schedule["cron"] for schedule in deployment.get("schedules", [])]
        if not crons:
            continue
        scheduled = {
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
            "deployments": {"name": {"any_": [deployment["name"]]}},
        }
        runs = _until(lambda body=scheduled: _ask(f"{api}/flow_runs/filter", body), 60, _log(ui))
        assert all(run["parameters"] == deployment["parameters"] for run in runs)


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
                "anchor_date": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 20)),
            }
        ],
    }
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump(deployments | {"deployments": [micro]}), encoding="utf-8")
    _run(["deploy", "--file", str(file)], ui)
    log = tmp_path / "worker.log"
    servers = _servers(ui)
    finished = {
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}},
        "flows": {"name": {"any_": ["rlhf-recipe"]}},
    }
    with _process(["worker"], ui, log) as worker:
        runs = _until(lambda: _ask(f"{servers['prefect']}/flow_runs/filter", finished), 300, log, worker)
    assert [run["state_type"] for run in runs] == ["COMPLETED"], log.read_text(errors="replace")[-3000:]
    assert runs[0]["auto_scheduled"]
    _require_evidence(f"{servers['mlflow']}/api/2.0/mlflow")


def _require_evidence(api: str) -> None:
    """Require what a run leaves where `rlhf ui` looks: every stage, what the parent shows, and the versions."""
    experiment = _ask(f"{api}/experiments/get-by-name?experiment_name=micro")["experiment"]["experiment_id"]
    logged = _ask(f"{api}/runs/search", {"experiment_ids": [experiment], "max_results": 100})["runs"]
    runs = {run["info"]["run_name"]: run for run in logged}
    assert len(runs) == len(logged)
    assert {run["info"]["status"] for run in logged} == {"FINISHED"}
    parent = runs.pop("micro")
    assert {"validate", "ppo", "dpo", "register", "report"} <= set(runs)
    assert {_tags(run)["mlflow.parentRunId"] for run in runs.values()} == {parent["info"]["run_id"]}
    assert {"recipe", "config_digest", "code_revision", "seed", "prefect.flow_run_id"} <= set(_tags(parent))
    inputs = {found["dataset"]["name"] for found in parent["inputs"]["dataset_inputs"]}
    trained_on = {"corpus", "demonstrations", "prompts"}
    assert inputs == trained_on | {
        "held_out",
        "held_out_text",
        "held_out_demonstrations",
        "red_team",
        "benign",
    }
    files = _ask(f"{api}/artifacts/list?run_id={parent['info']['run_id']}")["files"]
    assert {"config.json", "plots", "report.html", "responses.json"} <= {found["path"] for found in files}
    # Equal names, so that MLflow's page that compares two runs has something to compare.
    for aligner in ("ppo", "dpo"):
        metrics = {metric["key"] for metric in runs[aligner]["data"]["metrics"]}
        assert {
            "evaluate/win_rate",
            "evaluate/win_rate_low",
            "evaluate/win_rate_high",
            "evaluate/kl",
        } <= metrics
    versions = _ask(f"{api}/model-versions/search?filter=name%3D%27micro%27")["model_versions"]
    assert len(versions) == 2
    for version in versions:
        tags = {tag["key"]: tag["value"] for tag in version["tags"]}
        assert {"aligner", "gate", "win_rate", "win_rate_low", "win_rate_high", "kl", "digest"} <= set(tags)
        assert tags["config_digest"] == _tags(parent)["config_digest"]
        assert {"data.demonstrations", "data.prompts", "data.preferences", "reward.model"} <= set(tags)


def _tags(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
