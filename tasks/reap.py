"""End what killed processes have left open: their runs in MLflow and in Prefect, and their record in the store."""

import logging
import time
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from rlhf.adapters import presence
from rlhf.adapters.presence import EXPIRY_SECONDS, Watch
from rlhf.adapters.tracking import Tracking
from schemas.process import Process, Reaped
from tasks.work import artifact_store

logger = logging.getLogger(__name__)


def reap(tracking: Tracking, *, mine: str | None = None, patient: bool = False) -> Reaped:
    """End the runs of processes that are gone; `mine` is the Prefect run that asks, which is not one of them.

    Whether a process of this machine lives is seen at once. Those of other machines are judged only when `patient`: a minute
    without a sign of life. Then runs whose process the store does not know are ended, too.
    """
    store = artifact_store()
    found, watch = presence.known(store), Watch(store)
    living = {process.token for process in found if watch.alive(process.token)}
    if patient and any(process.token in living and not watch.here(process) for process in found):
        time.sleep(EXPIRY_SECONDS)
        living = {token for token in living if watch.alive(token)}
    dead = [
        process for process in found if process.token not in living and process.tracking == tracking.identity
    ]
    if not dead and not patient:
        return Reaped()
    open_runs = tracking.unfinished()
    # Asked after MLflow: a process is known before it opens its first run.
    unknown = set(open_runs) - {process.token for process in presence.known(store)} if patient else set()
    ended = [
        run_id for token in (*(one.token for one in dead), *unknown) for run_id in open_runs.get(token, ())
    ]
    for run_id in ended:
        tracking.run(run_id).finish("KILLED")
    crashed = _crash({one.flow_run_id for one in dead} - _flow_runs(found, living) - {mine, None})
    for process in dead:
        store.remove(presence.key_of(process.token))
    if ended or crashed:
        logger.warning(
            "ended what killed processes had left open: %d runs in MLflow, %d in Prefect",
            len(ended),
            len(crashed),
        )
    return Reaped(tracked=tuple(ended), flow_runs=crashed)


def _flow_runs(found: tuple[Process, ...], living: set[str]) -> set[str | None]:
    """Return the flow runs that somebody has taken up again."""
    return {process.flow_run_id for process in found if process.token in living}


def _crash(flow_run_ids: set[str | None]) -> tuple[str, ...]:
    """Mark flow runs as crashed that have neither ended nor wait for people; a slot that one held is free then."""
    crashed: list[str] = []
    if not (named := sorted(filter(None, flow_run_ids))):
        return ()
    try:
        with get_client(sync_client=True) as client:
            for name in named:
                try:
                    state = client.read_flow_run(UUID(name)).state
                except ObjectNotFound:
                    continue  # of another Prefect server
                if state is None or not (state.is_final() or state.is_paused()):
                    message = "its process is gone; the same command goes on from where it was"
                    client.set_flow_run_state(UUID(name), Crashed(message=message), force=True)
                    crashed.append(name)
    except httpx.HTTPError as error:
        logger.warning("Prefect's server could not be told which runs are dead: %s", error)
    return tuple(crashed)
