"""Order a stage from a worker of another pool, and wait for it as a light process that holds no card.

orders/<stage>/<key>.json    what the worker has delivered, or why it could not
"""

import logging
import time
from importlib import import_module
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.states import Cancelling

from schemas import errors
from schemas.config.run import PlaceConfig
from schemas.errors import LaunchFailed, RLHFError
from schemas.placing import Delivered, Delivery, Failure, Order
from tasks.work import StageWork, artifact_store

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
_AT_WORK = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]


def await_delivery(work: StageWork, place: PlaceConfig, order: Order) -> Delivery:
    """Have a worker compute the order, and return what it delivers; who is interrupted cancels the worker's run."""
    tag = f"order-{order.key}"
    flow_run_id = _at_work(tag) or _send(place, order, tag)
    logger.info("%s is computed by the flow run %s", work.called, flow_run_id)
    with get_client(sync_client=True) as client:
        try:
            while not (state := client.read_flow_run(flow_run_id).state) or not state.is_final():
                time.sleep(LOOK_SECONDS)
        except BaseException:
            client.set_flow_run_state(flow_run_id, Cancelling())
            raise
    content = artifact_store().read(delivered_key(order))
    if content is None:
        raise LaunchFailed(
            f"The run that computed stage {work.called} ended as {state.name} and delivered nothing: {state.message or 'no message'}. "
            "See its log in Prefect, then run the same command again: finished stages are re-used."
        )
    artifact_store().remove(delivered_key(order))
    found = Delivered.model_validate_json(content)
    if found.failure:
        raise raised(found.failure)
    assert found.delivery is not None, "one of the two is delivered"
    if found.tracked != work.run_id:  # ordered by a run that was killed
        work.tracked.log_points(found.delivery.points)
    return found.delivery


def delivered_key(order: Order) -> str:
    """Return the key of what a worker delivers."""
    return f"orders/{order.stage}/{order.key}.json"


def ordered(order: Order) -> Any:
    """Return the stage that an order names."""
    module, _, name = order.body.partition(":")
    return getattr(import_module(module), name)


def raised(failure: Failure) -> RLHFError:
    """Return the error that another process met."""
    kind = getattr(errors, failure.kind, LaunchFailed)
    return kind(failure.message) if issubclass(kind, RLHFError) else LaunchFailed(failure.message)


def _at_work(tag: str) -> UUID | None:
    """Return the run that computes the same order already: who sent it was killed."""
    wanted = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[tag]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_AT_WORK)),
    )
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=wanted)
    return found[0].id if found else None


def _send(place: PlaceConfig, order: Order, tag: str) -> UUID:
    artifact_store().remove(delivered_key(order))
    run = run_deployment(
        place.deployment,
        parameters={"order": order.model_dump(mode="json")},
        timeout=0,
        tags=[tag],
        as_subflow=False,
    )
    assert isinstance(run, FlowRun), "called where nobody awaits"
    return run.id
