"""The tools that read these files for real, and what compose.yaml starts, as processes of this machine."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RECIPE = """
aligners: [{method: dpo, steps: 2, batch_size: 8}]
gate: {min_prompts: 8, min_win_rate_low: 0, max_right_drop: 1, max_rude: 1, max_length_ratio: 60, max_kl: 10000,
       max_perplexity_ratio: 1000, max_harm_rise: 1, max_over_refusal_rise: 1}
"""


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Return what finds a program beside this Python, or on the PATH."""

    def find(name: str) -> str:
        beside = Path(sys.executable).parent / name
        found = str(beside) if beside.is_file() else shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed here")
        return found

    return find


class Servers:
    """The processes that run, and how a client sees them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bootstrapped: set[str] = set()
        lines = (home / "client.env").read_text(encoding="utf-8").splitlines()
        self.client = {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}

    def secret(self, name: str) -> str:
        return (self.home / "secrets" / name).read_text(encoding="utf-8")

    def log(self, name: str) -> str:
        return (self.home / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def command(self, *arguments: str, **more: str) -> None:
        ours = {"PATH": os.environ["PATH"], "HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        env = {**ours, **self.client, **more}
        done = subprocess.run(
            [sys.executable, "-m", *arguments], env=env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def prefect(
        self, path: str, body: Any = None, login: str | None = None, method: str | None = None
    ) -> Any:
        url = f"{self.client['PREFECT_API_URL']}/{path}"
        return ask(url, body, login or self.secret("prefect_auth"), method)

    def deployment(self, name: str) -> dict[str, Any]:
        (found,) = self.prefect("deployments/filter", {"deployments": {"name": {"any_": [name]}}})
        return dict(found)

    def schedule(self, name: str) -> None:
        """Give a deployment a cron schedule whose minute comes soon, and see that Prefect plans a run for it.

        Prefect plans for what has just changed every few seconds, for the rest once a minute: a cron minute that
        has passed by then is the next day's.
        """
        deployment = f"deployments/{self.deployment(name)['id']}"
        planned = {
            "deployments": {"name": {"any_": [name]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }  # fmt: skip
        for _ in range(5):
            soon = int(time.time()) + 15
            due = soon - soon % 60 + 60
            at = time.gmtime(due)
            cron = {"cron": f"{at.tm_min} {at.tm_hour} * * *", "timezone": "UTC"}
            (added,) = self.prefect(f"{deployment}/schedules", [{"schedule": cron, "active": True}])
            self.prefect(deployment, {"paused": False}, method="PATCH")  # a change
            while time.time() < due:
                starts = {
                    run["expected_start_time"][:19] for run in self.prefect("flow_runs/filter", planned)
                }
                if time.strftime("%Y-%m-%dT%H:%M:%S", at) in starts:
                    return
                time.sleep(1)
            self.prefect(f"{deployment}/schedules/{added['id']}", method="DELETE")
        pytest.fail(f"Prefect plans no run of {name}; its log ends: {self.log('prefect')[-3000:]}")

    def mlflow(self, path: str, body: Any = None, login: str | None = None) -> Any:
        login = login or f"pipeline:{self.secret('mlflow_password')}"
        return ask(f"{self.client['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{path}", body, login)

    def ended(self, name: str) -> dict[str, Any]:
        """Wait until the first run of a deployment has ended, and return it."""
        wanted = {"deployments": {"name": {"any_": [name]}}, "flow_runs": {"start_time": {"is_null_": False}}}
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            for run in self.prefect("flow_runs/filter", wanted):
                if run["state_type"] in {"COMPLETED", "FAILED", "CRASHED"}:
                    found: dict[str, Any] = run
                    return found
            time.sleep(1)
        pytest.fail(f"no run of {name} has ended; the worker's log ends: {self.log('worker')[-3000:]}")

    def database(self, name: str, question: str) -> list[Any]:
        """Ask one of the databases."""
        import psycopg

        with psycopg.connect(self.secret("feedback_database").removesuffix("feedback") + name) as connection:
            return connection.execute(question.encode()).fetchall()


def ask(url: str, body: Any, login: str, method: str | None = None) -> Any:
    headers = {
        "Content-Type": "application/json", "Authorization": f"Basic {base64.b64encode(login.encode()).decode()}",
    }  # fmt: skip
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
        return json.loads(answer.read() or b"null")


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    # Not pytest's own folder: PostgreSQL's user may not enter it.
    home = Path("/tmp") / f"rlhf-local-{uuid.uuid4().hex[:8]}"  # noqa: S108 - random name
    home.mkdir(mode=0o711)
    command = [sys.executable, "infra/local.py", "--home", str(home), "--free-ports"]
    with (home / "out").open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 240
        while not (home / "client.env").is_file() or b"everything runs" not in (home / "out").read_bytes():
            said = (home / "out").read_text()
            if "PostgreSQL is not installed" in said:
                pytest.skip(said)
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.5)
        yield Servers(home)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        listening = subprocess.run(
            ["pgrep", "-f", str(home)], capture_output=True, text=True, check=False
        ).stdout.split()
        shutil.rmtree(home, ignore_errors=True)
    assert (code, listening) == (0, [])


@pytest.fixture(scope="session")
def told() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the address of a receiver of notifications, and what it has been told."""
    received: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            received.append(json.loads(self.rfile.read(length)) | {"path": self.path})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/canary-notify-token", received
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def scheduled(
    servers: Servers, told: tuple[str, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Deploy a recipe with a cron schedule that comes due within a minute or so, and one that rankings start."""
    servers.bootstrapped |= {found["name"] for found in servers.prefect("deployments/filter", {})}
    for name in servers.bootstrapped:  # at two in the morning the tests are not to train in earnest
        servers.prefect(f"deployments/{servers.deployment(name)['id']}", method="DELETE")
    folder = tmp_path_factory.mktemp("deployed")
    (folder / "small.yaml").write_text(RECIPE, encoding="utf-8")
    tree = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    deployments = {deployment["name"]: deployment for deployment in tree["deployments"]}
    nightly, retrain = deployments["helpdesk-nightly"], deployments["helpdesk-retrain"]
    nowhere, small = {"recipe": "no-such-recipe"}, {"recipe": f"micro,{folder / 'small.yaml'}"}
    tree["deployments"] = [
        deployments["champion-weekly"] | {"name": "again", "parameters": small, "schedules": []},
        nightly | {"name": "soon", "parameters": small, "schedules": []},
        retrain
        | {
            "name": "retrain",
            "parameters": nowhere,
            "triggers": [{**trigger, "parameters": nowhere} for trigger in retrain["triggers"]],
        },
    ]
    file = folder / "prefect.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    servers.command("flows.cli", "deploy", "--file", str(file), RLHF_NOTIFY_URL=told[0])
    servers.schedule("soon")
    return "soon"
