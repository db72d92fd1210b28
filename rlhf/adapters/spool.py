"""The values of a run on their way to MLflow: in batches, and on disk while its server does not answer.

    <spool>/<run id>-<any>.jsonl    values that wait, with the time at which they were measured, and at last how the run ended

MLflow takes a value that it has already (same name, step, time and number) once, so sending again what may have
arrived repeats nothing.
"""

import fcntl
import json
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rlhf.adapters.mlflow_errors import ask
from rlhf.adapters.reachable import require_tracking
from schemas.errors import NotFound, TrackingUnreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 2.0
_PAUSE_SECONDS = 10.0
_FLUSH_POINTS = 500
_BATCH = 1000  # the most that the server takes at once


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one metric."""

    key: str
    value: float
    timestamp: int
    """Milliseconds since 1970."""
    step: int


class Spool:
    """What one run has measured and MLflow does not have yet."""

    def __init__(self, client: "MlflowClient", run_id: str, folder: Path) -> None:
        self.waiting: list[Point] = []
        self._client = client
        self._run_id = run_id
        self._path = folder / f"{run_id}-{uuid.uuid4().hex}.jsonl"  # two may add to one run
        self._next_flush = 0.0
        self._file: TextIO | None = None
        """Open, and locked, while the server does not answer."""

    def add(self, points: Sequence[Point]) -> None:
        """Take values; send them when there are enough of them, or it is time."""
        self.waiting += points
        if self._file:
            _append(self._file, map(asdict, points))
        if time.monotonic() >= self._next_flush or (not self._file and len(self.waiting) >= _FLUSH_POINTS):
            self.flush()

    def flush(self) -> bool:
        """Send what waits; without an answer it is kept on disk, training goes on, and it is offered again later."""
        try:
            if self._file:
                require_tracking(self._client.tracking_uri)  # at once, where the client tries for long
            while self.waiting:
                _send(self._client, self._run_id, self.waiting[:_BATCH])
                del self.waiting[:_BATCH]
        except TrackingUnreachable as error:
            if not self._file:
                logger.warning("values wait on disk until the tracking server answers: %s", error)
                self._open()
            self._next_flush = time.monotonic() + _PAUSE_SECONDS
            return False
        if self._file:
            logger.warning("the tracking server answers again; no value was lost")
            self._close()
        self._next_flush = time.monotonic() + _FLUSH_SECONDS
        return True

    def end(self, status: str) -> None:
        """Send the rest and end the run; what the server does not take now is delivered by a later process."""
        if self.flush():
            try:
                ask(self._client.set_terminated, self._run_id, status)
            except TrackingUnreachable:
                self._open()
        if self._file:
            logger.warning(
                "%d values and the end of run %s wait in %s; the next command that reaches the server sends them",
                len(self.waiting), self._run_id, self._path,
            )  # fmt: skip
            _append(self._file, [{"status": status, "ended": _now()}])
            self._file.close()
            self._file = None

    def leave(self) -> None:
        """Send the rest without ending the run; what is not taken stays on disk for a later process."""
        if not self.flush() and self._file:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # free as soon as this process ends, however it does
        _append(self._file, map(asdict, self.waiting))

    def _close(self) -> None:
        assert self._file is not None
        self._path.unlink(missing_ok=True)
        self._file.close()
        self._file = None


def measured(key: str, value: float, step: int) -> Point:
    """Return a value that was measured now."""
    return Point(key, value, _now(), step)


def deliver(client: "MlflowClient", folder: Path) -> None:
    """Send what processes that are gone could not; files of living ones are locked and left to them."""
    for path in sorted(folder.glob("*.jsonl")):
        run_id = path.stem.partition("-")[0]
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            lines = list(_lines(file))
            points = [Point(**line) for line in lines if "key" in line]
            try:
                for start in range(0, len(points), _BATCH):
                    _send(client, run_id, points[start : start + _BATCH])
                for line in lines:
                    if "status" in line:
                        ask(client.set_terminated, run_id, line["status"], line["ended"])
            except TrackingUnreachable:
                return
            except NotFound as error:
                logger.warning("%d values have nowhere to go: %s", len(points), error)
            path.unlink(missing_ok=True)


def _send(client: "MlflowClient", run_id: str, points: Sequence[Point]) -> None:
    from mlflow.entities import Metric

    ask(client.log_batch, run_id, metrics=[Metric(p.key, p.value, p.timestamp, p.step) for p in points])


def _append(file: TextIO, lines: Any) -> None:
    file.writelines(f"{json.dumps(line)}\n" for line in lines)
    file.flush()


def _lines(file: TextIO) -> Iterator[dict[str, Any]]:
    for line in file:
        if line.endswith("\n"):  # the last one may be torn
            yield json.loads(line)


def _now() -> int:
    return time.time_ns() // 1_000_000
