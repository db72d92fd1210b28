"""Wake the flow runs whose batches are closed; Prefect has no command of its own for it."""

from typing import TYPE_CHECKING
from uuid import UUID

from flows.environment import prefect_answers
from rlhf.feedback import batches

if TYPE_CHECKING:
    from rlhf.feedback.database import Feedback
    from rlhf.feedback.schema import Batch


def resume_waiting(feedback: "Feedback") -> list[str]:
    """Resume every run that waits for a closed batch; return what happened, one line each."""
    waiting = batches.waiting_to_resume(feedback)
    if not waiting:
        return []
    if not prefect_answers():
        names = ", ".join(batch.name for batch in waiting)
        return [
            f"the run that waits for {names} could not be told: no Prefect server answers; start it with `rlhf ui`, or set PREFECT_API_URL"
        ]
    return [message for batch in waiting if (message := _resume(feedback, batch))]


def _resume(feedback: "Feedback", batch: "Batch") -> str | None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from tasks.waiting import wake

    assert batch.flow_run_id is not None, "only batches with a run wait to be resumed"
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(batch.flow_run_id)).state
        except ObjectNotFound:
            batches.mark_resumed(feedback, batch.id)
            return f"the run that waited for {batch.name} is not known to this Prefect server any more"
        if state is None or not (state.is_paused() or state.is_final()):
            return None  # on its way into the suspension: the next look finds it there
        if state.is_paused() and (refusal := wake(client, UUID(batch.flow_run_id))):
            return f"Prefect did not resume the run that waits for {batch.name} ({refusal}); the next look tries again"
    batches.mark_resumed(feedback, batch.id)
    ended = "" if state.is_paused() else f" had ended before ({state.name})"
    return f"the run that waited for {batch.name}{ended or ' goes on'}"
