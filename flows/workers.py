"""`rlhf worker`: run what is due, on the CPU or one run per card."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from flows.servers import POOL, require_server
from flows.signals import stop_in_order
from flows.terminal import say
from schemas.errors import ConfigError, RLHFError
from tasks.children import end_with_parent

STOP_SECONDS = 30
HEALTH_PORT = "PREFECT_WORKER_WEBSERVER_PORT"
"""Where a worker says that it is well, if the variable is set; further ones use the ports after it."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(worker)


def worker(
    limit: Annotated[int, typer.Option(help="Runs at a time.", min=1)] = 1,
    gpus: Annotated[
        str | None,
        typer.Option(
            help="Cards, such as 0,1: a worker for each, with one run at a time and a slot in Prefect."
        ),
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Take runs of this work queue only.")] = None,
) -> None:
    """Run scheduled deployments on this machine until Ctrl-C."""
    require_server()
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", "5")
    command = start_command(limit if gpus is None else 1, queue)
    if gpus is None:
        # The worker takes our place, so that signals reach it as Prefect expects.
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    _one_per_card(command, cards(gpus))


def start_command(limit: int, queue: str | None) -> list[str]:
    """Return the command of one worker."""
    return [
        *(sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"),
        *("--limit", str(limit), "--install-policy", "never"),
        *(("--work-queue", queue) if queue else ()),
        *(("--with-healthcheck",) if HEALTH_PORT in os.environ else ()),
    ]


def cards(given: str) -> dict[str, dict[str, str]]:
    """Return the environment of each card's worker, by the name of its slot."""
    numbers = [part.strip() for part in given.split(",")]
    if not all(number.isdigit() for number in numbers) or len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"--gpus {given} does not name cards; give different numbers with commas, such as 0,1."
        )
    return {
        f"gpu-{socket.gethostname()}-{number}": {
            "CUDA_VISIBLE_DEVICES": number,
            "RLHF_GPU_SLOTS": f"gpu-{socket.gethostname()}-{number}",
        }
        for number in numbers
    }


def _one_per_card(command: Sequence[str], environments: dict[str, dict[str, str]]) -> None:
    from tasks.slots import make_slot

    stop_in_order()
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number, (slot, environment) in enumerate(environments.items()):
            make_slot(slot)
            if HEALTH_PORT in os.environ:
                environment[HEALTH_PORT] = str(int(os.environ[HEALTH_PORT]) + number)
            workers.append(
                subprocess.Popen(  # noqa: S603 - our own arguments
                    [*command, "--name", slot], env={**os.environ, **environment}, preexec_fn=end_with_parent
                )
            )
        say(f"{len(workers)} workers, one for each of {', '.join(environments)}; Ctrl-C stops them")
        while all(process.poll() is None for process in workers):
            time.sleep(1)
        ended = next(process for process in workers if process.poll() is not None)
        raise RLHFError(
            f"A worker ended with exit code {ended.returncode}; the others are stopped. See its output."
        )
    except KeyboardInterrupt:
        say("stopping the workers")
    finally:
        for process in workers:
            process.send_signal(signal.SIGTERM)
        for process in workers:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
