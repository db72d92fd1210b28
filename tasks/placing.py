"""Compute a stage here, or by the processes of `accelerate launch`: the stage's own code does not know which.

What goes over is JSON of refs and sections, never a pickle. The processes end with this one, however it ends.
"""

import io
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter

from rlhf.training.step import StepMetrics
from schemas.config.run import PlaceConfig
from schemas.errors import LaunchFailed, RLHFError
from schemas.pipeline import PipelineRun
from schemas.placing import Delivery, Failure, Order
from schemas.reports import StageResult
from tasks.children import end_with_parent
from tasks.ordering import await_delivery, raised
from tasks.progress import StageEvent, emit
from tasks.work import StageWork

logger = logging.getLogger(__name__)
R = TypeVar("R", bound=StageResult)

EVENT = "@event "
"""What a line of a launched process begins with that tells of its progress."""
STOP_SECONDS = 20
_LAST_LINES = 20


def compute(work: StageWork, body: Callable[..., R], kind: type[R], inputs: Mapping[str, Any]) -> R:
    """Run a stage's body where the recipe places the stage."""
    place = work.run.compute.stages.get(work.stage, PlaceConfig())
    if place.place == "inline":
        return body(work, *inputs.values())
    order = Order(
        body=f"{body.__module__}:{body.__name__}",
        stage=work.stage,
        run=work.run,
        key=work.key,
        tracked=work.run_id,
        inputs=pack(body, inputs),
    )
    found = await_delivery(work, place, order) if place.place == "pool" else launch(work, place, order)
    work.take_over(found)
    return kind.model_validate(found.result)


def computed_here(run: PipelineRun, stage: str) -> bool:
    """Tell whether this machine computes a stage, and not a worker of another pool."""
    return run.compute.stages.get(stage, PlaceConfig()).place != "pool"


def launch(work: StageWork, place: PlaceConfig, order: Order) -> Delivery:
    """Have the order computed by processes of this machine."""
    work.checkpoints.mkdir(parents=True, exist_ok=True)  # restored once, by this process
    path = work.folder / "order.json"
    path.write_text(order.model_dump_json(), encoding="utf-8")
    _launch(work, place, path)
    return Delivery.model_validate_json((work.folder / "delivery.json").read_text(encoding="utf-8"))


def pack(body: Callable[..., object], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage's arguments as JSON values, by its parameters' types."""
    hints = get_type_hints(body)
    return {name: TypeAdapter(hints[name]).dump_python(value, mode="json") for name, value in inputs.items()}


def unpack(body: Callable[..., object], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `pack` was given."""
    hints = get_type_hints(body)
    return {name: TypeAdapter(hints[name]).validate_python(value) for name, value in inputs.items()}


def command(place: PlaceConfig, order: Path) -> list[str]:
    """Return the command that starts the processes; DDP is accelerate's `multi_gpu`, on CPUs, too."""
    config = ["--config_file", place.accelerate] if place.accelerate else ["--multi_gpu"]
    return [
        *(sys.executable, "-m", "accelerate.commands.launch", *config),
        *("--num_processes", str(place.processes), "--main_process_port", "0"),
        *("-m", "tasks.launched", str(order)),
    ]


def _launch(work: StageWork, place: PlaceConfig, order: Path) -> None:
    """Run the processes to their end, and every line of theirs through our log."""
    on_cpu = {"ACCELERATE_USE_CPU": "true"} if work.run.compute.device == "cpu" else {}
    last: deque[str] = deque(maxlen=_LAST_LINES)
    process = subprocess.Popen(  # noqa: S603 - our own arguments
        command(place, order),
        env={**os.environ, **on_cpu},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    try:
        assert process.stdout is not None
        # A progress bar ends its lines with a carriage return only.
        for line in io.TextIOWrapper(process.stdout, encoding="utf-8", errors="replace", newline=None):
            _hear(work, line.rstrip(), last)
        code = process.wait()
    finally:
        _stop(process)
    if code:
        raise _failure(work, code, last)


def _hear(work: StageWork, line: str, last: deque[str]) -> None:
    if line.startswith(EVENT):
        event = TypeAdapter(StageEvent).validate_json(line.removeprefix(EVENT))
        emit(event)
        work.watch(
            StepMetrics(step=event.step, total=event.total, metrics=dict(event.metrics), tokens=event.tokens)
        )
    elif line:
        last.append(line)
        logger.info("%s: %s", work.called, line)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End every process of the group; the first signal lets them end by themselves."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            logger.warning("launched processes do not end by themselves")


def _failure(work: StageWork, code: int, last: deque[str]) -> RLHFError:
    """Return the error that a process wrote down, or what is known of its end."""
    path = work.folder / "failure.json"
    if path.is_file():
        return raised(Failure.model_validate_json(path.read_text(encoding="utf-8")))
    ended = f"signal {-code}" if code < 0 else f"exit code {code}"
    return LaunchFailed(
        f"The processes of stage {work.called} ended with {ended}; their last lines: {' | '.join(last) or 'none'}. "
        "Run the same command again: finished stages are re-used."
    )
