"""`rlhf doctor`: does this machine have what a run needs, and do the services answer?"""

import importlib.metadata
import os
import platform
import shutil
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import typer
from packaging.requirements import Requirement

from flows.commands_run import Json
from flows.environment import running_servers
from flows.terminal import show, show_json
from schemas.settings import Settings

FREE_GIB = 3
"""What the default recipe leaves behind, with room to spare."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(doctor)


def doctor(json: Json = False) -> None:
    """Check versions, disk, processors and services; exit code 1 when a run could not work."""
    settings = Settings()
    checks = [check(settings) for check in CHECKS]
    failed = not all(check.ok for check in checks)
    if json:
        show_json({"status": "failed" if failed else "done", "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            show(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.found}")
            if not check.ok:
                show(f"     {check.advice}")
    raise typer.Exit(int(failed))


def _versions(settings: Settings) -> Check:
    """Compare what is installed with the bounds that this project was proved to run with."""
    wrong = []
    for line in importlib.metadata.requires("rlhf") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is outside {requirement.specifier}")
    found = "; ".join(wrong) or f"Python {platform.python_version()} and every package within its bounds"
    return Check(
        "versions", not wrong, found, "Install with: make install (or pip install -c constraints.txt)."
    )


def _home(settings: Settings) -> Check:
    folder = next(parent for parent in (settings.home, *settings.home.parents) if parent.exists())
    writable = os.access(folder, os.W_OK)
    return Check(
        "home",
        writable,
        f"{settings.home}{'' if writable else ' cannot be written'}",
        "Set RLHF_HOME to a folder of yours.",
    )


def _disk(settings: Settings) -> Check:
    folder = next(parent for parent in (settings.home, *settings.home.parents) if parent.exists())
    free = shutil.disk_usage(folder).free / 2**30
    return Check(
        "disk",
        free >= FREE_GIB,
        f"{free:.1f} GiB free under {folder}",
        f"Free some: a run wants {FREE_GIB} GiB.",
    )


def _processors(settings: Settings) -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cuda = Path("/proc/driver/nvidia/version").exists()
    return Check(
        "processors", True, f"{cores} cores, {'an NVIDIA driver' if cuda else 'no GPU, none is needed'}"
    )


def _tracking(settings: Settings) -> Check:
    uri = urlsplit(settings.tracking_uri)
    if uri.scheme not in {"http", "https"}:
        return Check("tracking", True, settings.tracking_uri)
    port = uri.port or (443 if uri.scheme == "https" else 80)
    try:
        socket.create_connection((uri.hostname or "", port), timeout=3).close()
    except OSError as error:
        found = f"{uri.scheme}://{uri.hostname}:{port} does not answer ({error})"
        return Check(
            "tracking", False, found, "Start the server, or unset MLFLOW_TRACKING_URI for a local database."
        )
    return Check("tracking", True, f"{uri.scheme}://{uri.hostname}:{port} answers")


def _store(settings: Settings) -> Check:
    return Check("store", True, settings.store)


def _pages(settings: Settings) -> Check:
    servers = running_servers(settings)
    return Check(
        "pages", True, f"{servers.prefect}, {servers.mlflow}" if servers else "not running (rlhf ui)"
    )


CHECKS: tuple[Callable[[Settings], Check], ...] = (
    _versions,
    _home,
    _disk,
    _processors,
    _tracking,
    _store,
    _pages,
)
