"""What Prefect says of a run that a signal has ended: cancelled, and not crashed."""

import logging
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.states import Cancelled

logger = logging.getLogger(__name__)

_ASKED_FOR = ("signal", "system exit")


def cancelled_if_asked_for(flow: Any, flow_run: Any, state: Any) -> None:
    """Be told of a crash: what somebody has ended by a signal was cancelled."""
    if not any(words in (state.message or "") for words in _ASKED_FOR):
        return
    try:
        with get_client(sync_client=True) as client:
            message = "ended by a signal; the same command goes on from where it was"
            client.set_flow_run_state(flow_run.id, Cancelled(message=message), force=True)
    except httpx.HTTPError as error:
        logger.warning("Prefect's server could not be told that the run was cancelled: %s", error)
