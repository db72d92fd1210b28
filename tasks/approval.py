"""A person's word on a model that has passed the gate: from `rlhf approve`, or from the Prefect page of the run."""

import logging
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from rlhf.adapters.registry import ModelRegistry
from schemas.config import GateConfig
from schemas.errors import NotFound
from schemas.pipeline import PipelineRun
from schemas.reports import Promotion
from tasks.headline import artifact_key
from tasks.waiting import wake
from tasks.work import model_registry

logger = logging.getLogger(__name__)

WAITING, APPROVED, REJECTED = "waiting", "approved", "rejected"
"""What the tag `approval` of a version says."""


class Approval(RunInput):
    """The form that Prefect's page shows for a run that waits for approval."""

    decision: Literal["approve", "reject"] = "approve"
    reviewer: str = Field(min_length=1)
    reason: str = Field(min_length=1)


def wait_for_approval(run: PipelineRun, promotion: Promotion, config: GateConfig) -> bool:
    """Tell whether a person has decided on what waits; a deployed run is suspended until then, others go on."""
    if promotion.verdict != "waiting":
        return False
    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    registry, version = model_registry(run.name), promotion.version
    assert version is not None, "a version waits"
    if flow_run is None or flow_run.deployment_id is None:
        logger.warning(
            "version %d of %s waits for approval: rlhf approve %d --name %s --reason TEXT",
            version, run.name, version, run.name,
        )  # fmt: skip
        return False
    registry.tag(version, approval_flow_run=str(flow_run.id))
    # The key lets the resumed run, which comes by here again, find the answer.
    answer = suspend_flow_run(
        wait_for_input=Approval,
        timeout=int(config.approval_timeout_hours * 3600),
        key=artifact_key(run, f"approval-{version}"),
    )
    decide_by_person(registry, version, answer)
    return True


def decide_by_person(registry: ModelRegistry, version: int, answer: Approval) -> None:
    """Promote the version, or keep it from being promoted; who decided and why is kept."""
    found = registry.resolve(str(version))
    state = found.tags.get("approval")
    if state != WAITING:
        waiting = [str(one.version) for one in registry.versions() if one.tags.get("approval") == WAITING]
        raise NotFound(
            f"Version {version} of {registry.model} does not wait for approval (gate: {found.tags.get('gate', 'none')}, "
            f"approval: {state or 'none'}); waiting are: {', '.join(waiting) or 'none'}. See `rlhf models`."
        )
    if answer.decision == "approve":
        registry.promote(
            version, expected=int(found.tags["gate_champion"]), by=answer.reviewer, why=answer.reason
        )
    elif "candidate" in found.aliases:
        registry.withdraw()
    registry.tag(
        version,
        approval=APPROVED if answer.decision == "approve" else REJECTED,
        approval_by=answer.reviewer,
        approval_because=answer.reason,
    )


def resume(flow_run_id: str, answer: Approval) -> str:
    """Wake the run that waits for this answer; return what happened."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(flow_run_id)).state
        except ObjectNotFound:
            return "the run that waited for it is not known to this Prefect server"
        if state is None or not state.is_paused():
            return f"the run that asked for it does not wait any more ({state.name if state else 'unknown'})"
        if refusal := wake(client, UUID(flow_run_id), answer.model_dump(mode="json")):
            return f"Prefect did not resume the run that waits for it ({refusal}); answer on the run's page"
    return "the run that waited for it goes on"
