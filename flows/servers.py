"""`rlhf ui`, `deploy`: Prefect's and MLflow's own servers, on this machine's state."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from flows.environment import Servers, answers, prefect_answers, prepare, running_servers, servers_file
from flows.terminal import say, show
from schemas.errors import NotFound, RLHFError
from schemas.settings import Settings, without_login
from tasks.children import end_with_parent

HOST = "127.0.0.1"
POOL = "rlhf"
START_SECONDS = 120
STOP_SECONDS = 15
_NOT_FOR_ONE_RUN = (
    "cancellation_cleanup", "cleanup_reconciler", "event_persister", "foreman", "late_runs", "pause_expirations",
    "repossessor", "scheduler", "triggers",
)  # fmt: skip
"""Services of Prefect that a server which lasts as long as one run can do without.

What is left is the one that writes down task runs: without it the pages of `rlhf ui` would show a run without its stages.
"""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(ui)
    app.command()(deploy)


def ui(
    prefect_port: Annotated[int, typer.Option(help="Port of Prefect's pages.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow's pages.")] = 5000,
) -> None:
    """Serve the Prefect and MLflow pages on this machine until Ctrl-C."""
    settings = Settings()
    prepare(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    tracking_elsewhere = settings.tracking_uri.startswith("http")
    servers = Servers(
        prefect=f"http://{HOST}:{prefect_port}/api",
        mlflow=without_login(settings.tracking_uri) if tracking_elsewhere else f"http://{HOST}:{mlflow_port}",
    )
    # Prefect's page would look for its API at the default port, whatever port it is served from.
    os.environ.setdefault("PREFECT_SERVER_UI_API_URL", servers.prefect)
    commands = {f"{servers.prefect}/health": _prefect_server(prefect_port)}
    _require_free(prefect_port, "--prefect-port")
    if not tracking_elsewhere:
        _require_free(mlflow_port, "--mlflow-port")
        commands[f"{servers.mlflow}/health"] = _mlflow_server(settings, mlflow_port)
    # A terminal that closes or a supervisor that stops us must not leave the servers behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with _running(list(commands.values()), settings.home / "logs") as processes:
        say("starting the servers")
        for url in commands:
            _await(url, processes, settings.home / "logs")
        servers_file(settings).write_text(servers.model_dump_json(), encoding="utf-8")
        try:
            show(f"Prefect: {servers.prefect.removesuffix('/api')}")
            show(f"MLflow:  {servers.mlflow}")
            say('in MLflow choose "Model training" at the top left; Ctrl-C stops both')
            _watch(processes, settings.home / "logs")
        except KeyboardInterrupt:
            say("stopping the servers")
        finally:
            servers_file(settings).unlink(missing_ok=True)


def deploy(
    file: Annotated[Path, typer.Option(help="What to deploy.")] = Path("prefect.yaml"),
    pool_type: Annotated[
        str, typer.Option(help="Where runs are started: process, or kubernetes with --job-template.")
    ] = "process",
    job_template: Annotated[
        Path | None,
        typer.Option(help="The pool's base job template, such as infra/kubernetes/job-template.json."),
    ] = None,
) -> None:
    """Register the deployments of prefect.yaml, the pool whose workers run them, and who is told how they end."""
    if not file.is_file():
        raise NotFound(
            f"No file {file}; run from the folder that holds prefect.yaml, or name it with --file."
        )
    require_server()
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    template = ["--base-job-template", str(job_template)] if job_template else []
    _call([*prefect, "work-pool", "create", POOL, "--type", pool_type, *template, "--overwrite"])
    _call([*prefect, "deploy", "--all", "--prefect-file", str(file)])
    from flows.automations import keep_automations

    notify_url = Settings().notify_url
    kept = keep_automations(notify_url.get_secret_value() if notify_url else None)
    show(f"deployed {file}; runs start once a worker is up: rlhf worker")
    show(
        f"told to RLHF_NOTIFY_URL: {', '.join(kept)}"
        if kept
        else "nobody is told: RLHF_NOTIFY_URL is not set"
    )


@contextmanager
def temporary_prefect() -> Iterator[Callable[[], None]]:
    """Run a Prefect server for as long as the block lasts, unless one is named; yield what waits for its answer.

    It starts while the caller imports what a run needs; Prefect's own temporary server would start after that.
    """
    if "PREFECT_API_URL" in os.environ:
        yield lambda: None
        return
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    url, logs = f"http://{HOST}:{port}/api", Settings().home / "logs"
    without = {f"PREFECT_SERVER_SERVICES_{name.upper()}_ENABLED": "false" for name in _NOT_FOR_ONE_RUN}
    with _running([[*_prefect_server(port), "--no-ui"]], logs, **without) as processes:
        os.environ["PREFECT_API_URL"] = url
        try:
            yield lambda: _await(f"{url}/health", processes, logs)
        finally:
            del os.environ["PREFECT_API_URL"]


def require_server() -> None:
    """Raise unless a Prefect server answers."""
    if not prefect_answers():
        url = os.environ.get("PREFECT_API_URL")
        found = f"PREFECT_API_URL={url} does not answer" if url else "no Prefect server runs"
        raise RLHFError(f"{found}; start one with `rlhf ui` in another terminal, or set PREFECT_API_URL.")


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    if done.returncode:
        output = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise RLHFError(f"`{' '.join(command[3:])}` failed with exit code {done.returncode}: {output[-1]}")


def _prefect_server(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]


def _mlflow_server(settings: Settings, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--default-artifact-root", settings.mlflow_artifacts.as_uri(), "--no-serve-artifacts"),
    ]


def _require_free(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            running = running_servers(Settings())
            hint = "`rlhf ui` already runs" if running else "another program listens there"
            raise RLHFError(
                f"Port {port} is taken ({hint}); stop it or choose another with {option}."
            ) from None


@contextmanager
def _running(
    commands: Sequence[Sequence[str]], logs: Path, **settings: str
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the servers in process groups of their own, and stop every process of them at the end."""
    logs.mkdir(parents=True, exist_ok=True)
    environment = {
        **settings,
        **os.environ,
        # MLflow's job runner starts seven more processes for a feature that this project does not use.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # Not on its command line: it may hold a password, and everybody on this machine can list commands.
        "MLFLOW_BACKEND_STORE_URI": Settings().tracking_uri,
    }
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (logs / f"{command[2]}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(  # noqa: S603 - our own arguments
                        command,
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        preexec_fn=end_with_parent,
                    )
                )
        yield processes
    finally:
        for process in processes:
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for command, process in zip(commands, processes, strict=False):  # a start may have failed
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                say(f"{command[2]} did not stop by itself; killing it")
            # Also when the leader is gone: its children may not be.
            _signal_group(process, signal.SIGKILL)
            process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _await(url: str, processes: Sequence[subprocess.Popen[bytes]], logs: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers(url):
        _require_alive(processes, logs)
        if time.monotonic() > deadline:
            raise RLHFError(f"{url} did not answer within {START_SECONDS} s; its log is in {logs}.")
        time.sleep(0.1)


def _watch(processes: Sequence[subprocess.Popen[bytes]], logs: Path) -> None:
    while True:
        _require_alive(processes, logs)
        time.sleep(1)


def _require_alive(processes: Sequence[subprocess.Popen[bytes]], logs: Path) -> None:
    for process in processes:
        if process.poll() is not None:
            raise RLHFError(f"A server ended with exit code {process.returncode}; its log is in {logs}.")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
