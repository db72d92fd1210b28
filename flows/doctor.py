"""`rlhf doctor`: does this machine have what a run needs, do the services answer, and how is what is wrong mended?"""

from collections.abc import Callable
from dataclasses import asdict

import typer

from flows.checks_machine import gpu, home, memory, python, space, torch_build, versions
from flows.checks_services import (
    credentials,
    feedback,
    judge,
    pages,
    ports,
    prefect,
    secrets,
    store,
    tracking,
)
from flows.checks_verdict import Check
from flows.commands_run import Json
from flows.terminal import show, show_json
from schemas.settings import Settings

CHECKS: tuple[Callable[[Settings], Check], ...] = (
    python,
    versions,
    torch_build,
    gpu,
    memory,
    home,
    space,
    ports,
    pages,
    prefect,
    tracking,
    store,
    credentials,
    feedback,
    judge,
    secrets,
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(doctor)


def doctor(json: Json = False) -> None:
    """Check versions, devices, disk, ports, services and credentials; exit code 1 when a run could not work."""
    settings = Settings()
    checks = [check(settings) for check in CHECKS]
    failed = not all(check.ok for check in checks)
    if json:
        show_json({"status": "failed" if failed else "done", "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            show(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.found}")
            if check.advice:
                show(f"     {check.advice}")
    raise typer.Exit(int(failed))
