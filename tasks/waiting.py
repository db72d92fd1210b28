"""Let people rank: publish the batch and suspend the run, so that no worker is held while they work."""

import logging
import time
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas import SetStateStatus
from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run

from schemas.config import DataConfig, PreferencesConfig
from schemas.errors import FeedbackUnreachable
from schemas.pipeline import PipelineRun
from schemas.refs import DatasetRef
from tasks.feedback import feedback_store, publish_for_people
from tasks.progress import StageEvent, emit

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0


def wait_for_people(
    run: PipelineRun, candidates: DatasetRef, data: DataConfig, config: PreferencesConfig
) -> None:
    """Return once people have ranked the candidates; a deployed run is suspended until then."""
    if config.source != "people":
        return
    context = FlowRunContext.get()
    assert context is not None, "stages are called in a flow"
    assert context.flow_run is not None, "a flow that runs has a run"
    flow_run = context.flow_run
    deployed = flow_run.deployment_id is not None
    batch = publish_for_people(
        run.called(run.name),
        candidates,
        data,
        config,
        seed=run.seed,
        flow_run_id=str(flow_run.id) if deployed else None,
    )
    if batch.closed_at is not None:
        return
    logger.warning(
        "%s waits until people have given %d rankings, or an admin closes it: rlhf label serve",
        batch.name, batch.quota,
    )  # fmt: skip
    if deployed:
        # The key lets the resumed run, which comes by here again, find that it has waited already.
        suspend_flow_run(timeout=int(config.timeout_hours * 3600), key=batch.key)
        return
    _wait_here(run.called("preferences"), batch.key, time.monotonic() + config.timeout_hours * 3600)


def wake(client: SyncPrefectClient, flow_run_id: UUID, run_input: dict[str, Any] | None = None) -> str | None:
    """Resume a suspended run; return why Prefect would not, or None when the run goes on."""
    answer = client.resume_flow_run(flow_run_id, run_input=run_input)
    if answer.status is SetStateStatus.ACCEPT:
        return None
    return getattr(answer.details, "reason", None) or f"its answer was {answer.status.value}"


def _wait_here(stage: str, key: str, deadline: float) -> None:
    """Wait in this process: a run from the command line has nobody who would start it again."""
    from rlhf.feedback import batches

    emit(StageEvent(stage=stage, state="started"))
    shown = -1
    while (batch := batches.by_key(feedback_store(), key)) and batch.closed_at is None:
        if batch.answered != shown:
            shown = batch.answered
            emit(StageEvent(stage=stage, state="step", step=shown, total=batch.quota))
        if time.monotonic() > deadline:
            raise FeedbackUnreachable(
                f"Batch {batch.name} has {batch.answered} of {batch.quota} rankings, and preferences.timeout_hours is over; close it with `rlhf label close {batch.name}`, or run again to wait longer."
            )
        time.sleep(LOOK_SECONDS)
