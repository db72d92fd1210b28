"""Hold the cards of this worker while a stage computes, so that two runs never share one by accident.

A slot is a global concurrency limit in Prefect with a lease: when its holder is killed, the slot is free a minute later.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency

from schemas.pipeline import PipelineRun
from schemas.settings import Settings

LEASE_SECONDS = 60.0
_ON_THE_CPU = {"validate", "preferences", "gate", "register", "report"}


@contextmanager
def gpu_slots(run: PipelineRun, stage: str) -> Iterator[None]:
    """Wait for the slots that `RLHF_GPU_SLOTS` names, and hold them; what stays on the CPU needs none."""
    names = sorted(filter(None, Settings().gpu_slots.split(",")))
    if not names or run.compute.device == "cpu" or stage in _ON_THE_CPU:
        yield
        return
    # An outage of Prefect's server must not end training that holds a card.
    with concurrency(names, strict=True, lease_duration=LEASE_SECONDS, raise_on_lease_renewal_failure=False):
        yield


def make_slot(name: str) -> None:
    """Have Prefect know a slot for one holder at a time."""
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, limit=1)
