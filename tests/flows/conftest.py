"""A Prefect server with the recipe deployed to it, and machines whose workers run it."""

import multiprocessing
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest
import yaml

from schemas.reports import RunSummary

ROOT = Path(__file__).parents[2]
ENDED = {"Failed", "Crashed", "Completed", "TimedOut"}


class Place:
    """What several machines share: Prefect's API, and a folder for logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"

    def machine(self, home: Path, **more: str) -> dict[str, str]:
        """Return the environment of a machine that keeps its own things in `home`."""
        ours = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))
        }
        (home / "prefect").mkdir(parents=True, exist_ok=True)
        return {
            **ours,
            "RLHF_HOME": str(home),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PYTHONPATH": str(ROOT),
            **more,
        }

    @contextmanager
    def process(self, name: str, *arguments: str, env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a module until the block ends; its output is in the log of that name."""
        with (self.folder / f"{name}.log").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=env, cwd=ROOT, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, number)
                    process.wait(timeout=15)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue

    def worker(self, name: str, env: dict[str, str]) -> Any:
        """Run a worker until the block ends."""
        return self.process(name, "prefect", "worker", "start", "--pool", "rlhf", env=env)

    def log(self, name: str) -> str:
        """Return the end of a log."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def command(self, env: dict[str, str], *arguments: str) -> str:
        """Run a module to its end and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=180,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start_run(self, overrides: Sequence[str]) -> UUID:
        """Ask for a run of the micro recipe."""
        with self.client() as client:
            deployment = client.read_deployment_by_name("rlhf-recipe/helpdesk-nightly")
            run = client.create_flow_run_from_deployment(
                deployment.id, parameters={"recipe": "micro", "overrides": list(overrides)}
            )
            return UUID(str(run.id))

    def reaches(self, run: UUID, *states: str, log: str) -> None:
        """Wait until the run is in one of the states; it fails in another final one."""
        with self.client() as client:

            def state() -> str | None:
                now = str(client.read_flow_run(run).state_name)
                return now if now in {*states, *ENDED} else None

            assert until(state, 240, " or ".join(states)) in states, self.log(log)

    def resume(self, run: UUID, form: dict[str, str]) -> None:
        """Send what Prefect's page sends when a person fills in the form of a suspended run."""
        with self.client() as client:
            assert client.resume_flow_run(run, run_input=form).status.value == "ACCEPT"

    def state(self, run: UUID | str, api: str | None = None) -> str:
        """Return the name of a run's state."""
        with self.client(api) as client:
            return str(client.read_flow_run(UUID(str(run))).state_name)

    def until(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait for something, and return it."""
        return until(condition, seconds, what)

    def running(self) -> list[str]:
        """Return the runs that the server takes for running."""
        from prefect.client.schemas.filters import FlowRunFilter

        wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING"]}}})
        with self.client() as client:
            return [run.name for run in client.read_flow_runs(flow_run_filter=wanted)]

    @contextmanager
    def client(self, api: str | None = None) -> Iterator[Any]:
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: api or self.api}), get_client(sync_client=True) as client:
            yield client


class Run:
    """One run, and what it has told so far."""

    def __init__(self, env: dict[str, str], overrides: Sequence[str]) -> None:
        self.told: list[tuple[str, str, int, float]] = []
        self.summary: dict[str, Any] = {}
        self._out, theirs = multiprocessing.Pipe(duplex=False)
        given = {"env": env, "overrides": list(overrides), "out": theirs}
        self.process = multiprocessing.get_context("forkserver").Process(
            target=runpy.run_path, args=(str(Path(__file__).with_name("one_run.py")), given, "__main__")
        )
        self.process.start()
        theirs.close()

    def until(self, stage: str, state: str, step: int = 0) -> None:
        """Read what it tells until that."""
        while (event := self._read()) is not None:
            if event[:2] == (stage, state) and event[2] >= step:
                return
        raise AssertionError(f"it ended before {stage} was {state}: {self.told[-3:]}")

    def finish(self) -> dict[str, Any]:
        """Read to the end and return the summary."""
        while self._read() is not None:
            continue
        self.process.join(60)
        assert self.process.exitcode == 0, self.told[-1]
        return self.summary

    def fail(self) -> str:
        """Read to the end and return the error."""
        while self._read() is not None:
            continue
        self.process.join(60)
        assert self.process.exitcode
        return self.told[-1][1]

    def kill(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)
        while self._read() is not None:
            continue
        self.process.join(30)
        assert self.process.exitcode is not None
        return self.process.exitcode

    def stages(self, state: str) -> list[str]:
        return [stage for stage, found, *_ in self.told if found == state]

    def _read(self) -> tuple[str, str, int, float] | None:
        try:
            message = self._out.recv()
        except EOFError:
            return None
        if isinstance(message, str):
            self.summary = RunSummary.model_validate_json(message).model_dump(mode="json")
            return None
        self.told.append(message)
        return self.told[-1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {what}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - loopback
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found = Place(tmp_path_factory.mktemp("place"))
    env = found.machine(found.folder / "server")
    tree = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    tree["pull"] = [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
    for deployment in tree["deployments"]:
        deployment["schedules"] = []
    path = found.folder / "prefect.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with found.process("server", "prefect", "server", "start", "--port", str(found.port), env=env):
        until(lambda: _answers(f"{found.api}/health"), 120, "Prefect's server")
        found.command(env, "prefect", "--no-prompt", "work-pool", "create", "rlhf", "--type", "process")
        found.command(env, "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path))
        yield found


class Starter:
    """Starts runs of the micro recipe as processes of their own, forked from one that has imported everything."""

    ALWAYS_RUN: ClassVar[set[str]] = {"register", "report"}
    """Their results lie outside the store."""

    def __init__(self, place: Place) -> None:
        self._place = place
        imported = [
            "flows.pipeline",
            "mlflow",
            "torch",
            "transformers",
            "trl",
            "peft",
            "polars",
            "scipy.stats",
        ]
        multiprocessing.get_context("forkserver").set_forkserver_preload(imported)
        with pytest.MonkeyPatch.context() as patched:  # nobody waits half a minute to see a stage tried again
            patched.setenv("PREFECT_TASKS_DEFAULT_RETRY_DELAY_SECONDS", "[1, 2]")
            forkserver.ensure_running()

    def __call__(self, home: Path, *overrides: str, **more: str) -> Run:
        return Run(self._place.machine(home, **more), overrides)

    def digests(self, summary: dict[str, Any]) -> dict[str, str]:
        return {
            f"{stage['name']}.{name}": ref["digest"]
            for stage in summary["stages"]
            if stage["name"] not in self.ALWAYS_RUN
            for name, ref in stage["outputs"].items()
        }

    def metrics(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Return what the stages measured, by stage, without what they measured of the clock."""
        return {
            stage["name"]: {
                name: value
                for name, value in stage["metrics"].items()
                if not re.search("runtime|second", name)
            }
            for stage in summary["stages"]
            if stage["name"] not in self.ALWAYS_RUN
        }

    def tracked(self, home: Path, *status: str) -> list[Any]:
        """Return the MLflow runs of a home that have one of the states."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
        experiments = [found.experiment_id for found in client.search_experiments()]
        found = client.search_runs(experiments, max_results=1000)
        return [run for run in found if run.info.status in status]


@pytest.fixture(scope="session")
def start(place: Place) -> Starter:
    return Starter(place)


@pytest.fixture(scope="session")
def quiet_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture(scope="session")
def undisturbed(start: Starter, quiet_home: Path) -> dict[str, Any]:
    """The summary of a run that nothing disturbs."""
    return start(quiet_home).finish()
