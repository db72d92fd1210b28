"""Which pipeline runs are alive: each keeps a record in the store that beats, and others can judge it.

    processes/<token>.json    where the process runs, and how often it has beaten

A process of this machine is looked up directly: its number and the moment at which it started. One of another machine is
dead once its record has not changed while this process watched for `EXPIRY_SECONDS`, by a clock that cannot jump. The
time of day decides nothing.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Protocol

from schemas.errors import StoreUnreachable
from schemas.process import Process

logger = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
"""Six beats: a store that is slow or away for a while makes nobody dead."""
_PREFIX = "processes"


class Records(Protocol):
    """The part of the object store that keeps the records."""

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a record, or None."""

    def write(self, key: str, data: bytes) -> None:
        """Replace a record."""

    def remove(self, key: str) -> None:
        """Remove a record, if it is there."""

    def list_keys(self, prefix: str) -> list[str]:
        """Return the keys of the records below a prefix, sorted."""


@contextmanager
def present(records: Records, *, tracking: str, flow_run_id: str | None) -> Iterator[Process]:
    """Be known as alive for as long as the block lasts; a killed process leaves its record, which stops beating."""
    process = Process(
        token=uuid.uuid4().hex,
        host=_host(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        tracking=tracking,
        flow_run_id=flow_run_id,
    )
    records.write(key_of(process.token), process.model_dump_json().encode())
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(records, process, ended), name="presence", daemon=True)
    heart.start()
    try:
        yield process
    finally:
        ended.set()
        heart.join()
        with suppress(StoreUnreachable):  # it stays, as that of a killed process would
            records.remove(key_of(process.token))


def known(records: Records) -> tuple[Process, ...]:
    """Return all that have a record, dead or alive."""
    found = (records.read(key) for key in records.list_keys(_PREFIX))
    return tuple(Process.model_validate_json(content) for content in found if content)


def key_of(token: str) -> str:
    """Return the key of a process's record."""
    return f"{_PREFIX}/{token}.json"


class Watch:
    """Judges processes; it has to look more than once at one of another machine."""

    def __init__(self, records: Records, *, now: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._now = now
        self._seen: dict[str, tuple[int, float]] = {}

    def alive(self, token: str) -> bool:
        """Tell whether a process may be at work; one that has ended or was never there is not."""
        content = self._records.read(key_of(token))
        if content is None:
            return False
        process = Process.model_validate_json(content)
        if process.host == _host():
            return _started(process.pid) == process.started
        beat, since = self._seen.get(token, (-1, 0.0))
        if beat != process.beat:
            self._seen[token] = (process.beat, self._now())
            return True
        return self._now() - since < EXPIRY_SECONDS

    def here(self, process: Process) -> bool:
        """Tell whether one look at the process is enough."""
        return process.host == _host()


def _beat(records: Records, process: Process, ended: threading.Event) -> None:
    beat = process.beat
    while not ended.wait(BEAT_SECONDS):
        beat += 1
        try:
            records.write(
                key_of(process.token), process.model_copy(update={"beat": beat}).model_dump_json().encode()
            )
        except (StoreUnreachable, OSError) as error:  # a full disk, too, must not stop the heart
            logger.warning("the store did not take a sign of life: %s", error)


@cache
def _host() -> str:
    """Name this machine since it was started, and the process namespace: numbers of processes mean nothing beyond."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    since = boot.read_text(encoding="ascii").strip() if boot.is_file() else ""
    return f"{socket.gethostname()} {since} {namespace.readlink() if since else ''}".strip()


def _started(pid: int) -> str:
    """Return the moment at which a process started, in the kernel's ticks; empty when it is gone.

    Where there is no /proc, any process of that number counts as the one.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "" if Path("/proc").is_dir() or not _exists(pid) else "unknown"
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
