"""Compute one stage for a run that waits elsewhere."""

import time

from rlhf.adapters.presence import present
from schemas.config.run import PlaceConfig
from schemas.errors import RLHFError
from schemas.placing import Delivered, Delivery, Failure, Order
from tasks.ordering import delivered_key, ordered
from tasks.placing import launch, unpack
from tasks.slots import gpu_slots
from tasks.work import StageWork, artifact_store, connect_tracking


def deliver(order: Order, flow_run_id: str | None) -> None:
    """Compute the order, alone or by several processes, and leave the result or the error in the store."""
    tracking = connect_tracking(order.run.name)
    with (
        present(artifact_store(), tracking=tracking.identity, flow_run_id=flow_run_id),
        gpu_slots(order.run, order.stage),
    ):
        work = StageWork(
            run=order.run, stage=order.stage, key=order.key, started=time.monotonic(), tracked=order.tracked
        )
        try:
            found = Delivered(tracked=order.tracked, delivery=_compute(work, order))
        except RLHFError as error:
            found = Delivered(
                tracked=order.tracked, failure=Failure(kind=type(error).__name__, message=str(error))
            )
        except BaseException:
            work.saved.copy()
            raise
        artifact_store().write(delivered_key(order), found.model_dump_json().encode())
        if found.failure:
            work.saved.copy()


def _compute(work: StageWork, order: Order) -> Delivery:
    place = order.run.compute.stages.get(order.stage, PlaceConfig())
    if place.processes > 1 or place.accelerate:
        return launch(work, place, order)
    body = ordered(order).body
    result = body(work, *unpack(body, order.inputs).values())
    work.flush()
    return work.delivery(result)
