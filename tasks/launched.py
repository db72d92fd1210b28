"""One of the processes that `accelerate launch` starts for a stage: `python -m tasks.launched ORDER`.

All compute; the first one publishes, reports and hands back the result. The others stop where the stage publishes.
"""

import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter

from rlhf.training import processes
from rlhf.training.step import StepMetrics
from schemas.errors import RLHFError
from schemas.placing import Failure, Order
from tasks.children import end_with_parent
from tasks.ordering import ordered
from tasks.placing import EVENT, unpack
from tasks.progress import StageEvent, listen
from tasks.work import StageWork


class _Stop(Exception):
    """The rest is for the first process."""


class _Silent:
    """Takes the tags of a run, and tells nobody."""

    def set_tags(self, tags: dict[str, str]) -> None:
        """Do nothing."""


class Follower(StageWork):
    """The hands of a stage in every process but the first."""

    @property
    def tracked(self) -> Any:
        """Nobody: the first process reports."""
        return _Silent()

    def on_step(self, step: StepMetrics) -> None:
        """Tell nobody."""

    def publish_model(self, *_: object) -> NoReturn:
        """Stop: what is to be published is the same in all processes."""
        raise _Stop

    def publish_table(self, *_: object) -> NoReturn:
        """Stop, as above."""
        raise _Stop

    def publish_file(self, *_: object) -> NoReturn:
        """Stop, as above."""
        raise _Stop


def main(path: Path) -> int:
    """Compute the stage; the result or the error goes to a file beside the order."""
    order = Order.model_validate_json(path.read_text(encoding="utf-8"))
    device = order.run.compute.device
    processes.join("cpu" if device == "cpu" else "cuda" if _has_gpu() else "cpu")
    stage = ordered(order)
    kind = StageWork if processes.is_first() else Follower
    work = kind(
        run=order.run,
        stage=order.stage,
        key=order.key,
        started=time.monotonic(),
        tracked=order.tracked,
        shared=True,
    )
    try:
        with listen(_tell):
            result = stage.body(work, *unpack(stage.body, order.inputs).values())
    except _Stop:
        return 0
    except RLHFError as error:
        failure = Failure(kind=type(error).__name__, message=str(error))
        # Several may fail at the same step, and the rest are ended at once.
        own = path.with_name(f"failure-{os.getpid()}.json")
        own.write_text(failure.model_dump_json(), encoding="utf-8")
        own.replace(path.with_name("failure.json"))
        return error.exit_code
    work.flush()
    delivery = work.delivery(result)
    path.with_name("delivery.json").write_text(delivery.model_dump_json(), encoding="utf-8")
    return 0


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _tell(event: StageEvent) -> None:
    # JSON has no number that is not finite.
    finite = {name: value for name, value in event.metrics.items() if math.isfinite(value)}
    event = replace(event, metrics=finite)
    sys.stdout.write(f"{EVENT}{TypeAdapter(StageEvent).dump_json(event).decode()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    end_with_parent()  # accelerate starts each in a session of its own
    sys.exit(main(Path(sys.argv[1])))
