"""Take turns: of several runs that want the same stage, one computes it, and the others wait for its result."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from rlhf.adapters import leases
from rlhf.adapters.presence import Watch
from schemas.errors import StoreUnreachable
from schemas.pipeline import PipelineRun
from tasks.progress import StageEvent, emit
from tasks.work import artifact_store

logger = logging.getLogger(__name__)
T = TypeVar("T")

LOOK_SECONDS = 1.0


@contextmanager
def turn(run: PipelineRun, stage: str, key: str, *, look: Callable[[], T | None]) -> Iterator[T | None]:
    """Wait until no other living run computes the stage; yield its result if `look` finds it by then.

    Yielding None means that the work is this run's alone for as long as the block lasts; a killed run holds nothing.
    """
    store = artifact_store()
    watch, told = Watch(store), False
    while (result := look()) is None:
        found = leases.claim(store, f"{stage}/{key}", run.token, watch)
        if isinstance(found, leases.Lease):
            try:
                yield look()  # again: who had it before may have just finished
            finally:
                with suppress(StoreUnreachable, OSError):  # it ends with this process at the latest
                    found.release()
            return
        if not told:
            told = True
            logger.warning("%s: another run computes the same; waiting for its result", run.called(stage))
            emit(StageEvent(stage=run.called(stage), state="waiting"))
        time.sleep(LOOK_SECONDS)
    yield result


@contextmanager
def alone(run: PipelineRun, what: str) -> Iterator[None]:
    """Wait until no other living run does this, whatever else they do, and keep them out for as long as the block lasts."""
    store = artifact_store()
    watch = Watch(store)
    while not isinstance(found := leases.claim(store, what, run.token, watch), leases.Lease):
        time.sleep(LOOK_SECONDS)
    try:
        yield
    finally:
        with suppress(StoreUnreachable, OSError):  # as above
            found.release()
