"""A deployed run is suspended until a person has decided: by `rlhf approve`, or by the form on Prefect's page."""

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
from typing import Any
from uuid import UUID

import pytest
import yaml

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
OVERRIDES = [
    "gate.approval=manual", "gate.min_prompts=8", "gate.min_win_rate_low=0", "gate.max_right_drop=1",
    "gate.max_rude=1", "gate.max_length_ratio=60", "gate.max_kl=10000", "gate.max_perplexity_ratio=1000",
    "gate.max_harm_rise=1", "gate.max_over_refusal_rise=1",
]  # fmt: skip
ENDED = {"Failed", "Crashed", "Completed", "TimedOut"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(log: Path, *arguments: str, env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", *arguments]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(timeout=15)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _until(condition: Callable[[], Any], seconds: float, log: Path) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {log.read_text(errors='replace')[-3000:]}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - loopback
            return bool(response.status == 200)
    except OSError:
        return False


def _call(env: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(
        command, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    home = tmp_path / "home"
    (home / "prefect").mkdir(parents=True)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    own = {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{_free_port()}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    return {
        **ours, **own, "RLHF_HOME": str(home), "PREFECT_WORKER_QUERY_SECONDS": "2", "PYTHONPATH": str(ROOT),
    }  # fmt: skip


def _deploy(env: dict[str, str], tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    tree["pull"] = [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
    tree["deployments"][0]["schedules"] = []
    path = tmp_path / "prefect.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    _call(env, "prefect", "--no-prompt", "work-pool", "create", "rlhf", "--type", "process")
    _call(env, "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path))


def _models(env: dict[str, str]) -> list[dict[str, Any]]:
    listed = _call(env, "flows.cli", "models", "--name", "micro", "--json").stdout
    return list(json.loads(listed))


def test_a_suspended_run_goes_on_once_somebody_has_decided(env: dict[str, str], tmp_path: Path) -> None:
    api, log = env["PREFECT_API_URL"], tmp_path / "worker.log"
    port = api.split(":")[2].split("/")[0]
    with _process(tmp_path / "server.log", "prefect", "server", "start", "--port", port, env=env):
        _until(lambda: _answers(f"{api}/health"), 120, tmp_path / "server.log")
        _deploy(env, tmp_path)
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with (
            temporary_settings({PREFECT_API_URL: api}),
            get_client(sync_client=True) as client,
            _process(log, "prefect", "worker", "start", "--pool", "rlhf", env=env),
        ):
            deployment = client.read_deployment_by_name("rlhf-recipe/helpdesk-weekly")

            def state(run: Any) -> str:
                return str(client.read_flow_run(UUID(str(run.id))).state_name)

            def suspended(*overrides: str) -> Any:
                parameters = {"recipe": "micro", "overrides": [*OVERRIDES, *overrides]}
                run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
                found = _until(lambda: (now := state(run)) in {"Suspended", *ENDED} and now, 240, log)
                assert found == "Suspended", log.read_text()[-3000:]
                return run

            def completed(run: Any) -> None:
                found = _until(lambda: (now := state(run)) in ENDED and now, 240, log)
                assert found == "Completed", log.read_text()[-3000:]

            # By the command, which promotes at once and wakes the run.
            run = suspended()
            (one,) = [model for model in _models(env) if model["tags"].get("approval") == "waiting"]
            assert one["aliases"] == ["candidate"]
            named = ("approve", str(one["version"]), "--name", "micro", "--reason", "looks right")
            assert "goes on" in _call(env, "flows.cli", *named).stderr
            completed(run)
            found = {model["version"]: model for model in _models(env)}[one["version"]]
            assert found["aliases"] == ["champion"]
            assert found["tags"]["promoted_because"] == "looks right"

            # By Prefect's page, which sends what its form holds.
            run = suspended("ppo.kl_coef=0.7", "dpo.beta=0.7")
            (two,) = [model for model in _models(env) if model["tags"].get("approval") == "waiting"]
            form = {"decision": "approve", "reviewer": "ann", "reason": "better still"}
            client.resume_flow_run(UUID(str(run.id)), run_input=form)
            completed(run)
            found = {model["version"]: model for model in _models(env)}[two["version"]]
            assert found["aliases"] == ["champion"]
            assert (found["tags"]["promoted_by"], found["tags"]["approval"]) == ("ann", "approved")
            assert found["tags"]["promoted_over"] == str(one["version"])
