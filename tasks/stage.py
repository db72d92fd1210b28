"""What makes a function a stage: a Prefect task with a manifest in the store and a child run in MLflow.

The manifest is the truth about finished work. Its key covers the digests of the inputs, the configuration
section, the seed, and the code that computes the stage; it is used only if every output still exists.
"""

import hashlib
import inspect
import json
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_type_hints

from prefect import State, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from pydantic import BaseModel

from rlhf.models.device import forget_peak, peak_bytes
from schemas.config import ComputeConfig
from schemas.errors import StoreUnreachable
from schemas.pipeline import PipelineRun
from schemas.refs import Ref
from schemas.reports import StageEntry, StageRecord, StageResult
from tasks.code_digest import code_digest
from tasks.failures import RETRIES, may_succeed_later, raise_clearly
from tasks.headline import Progress, artifact_key, write_headline
from tasks.placing import compute, computed_here
from tasks.progress import StageEvent, emit
from tasks.slots import gpu_slots
from tasks.turns import turn
from tasks.work import (
    StageWork,
    artifact_store,
    log_inputs,
    release_memory,
    start_stage_run,
)

logger = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R", bound=StageResult)


class StageReached(Exception):
    """The stage that the run was to stop after is done."""


def stage(
    name: str, *, reuse: bool = True, fingerprint: Callable[..., str] | None = None
) -> Callable[[Callable[Concatenate[StageWork, P], R]], "Stage[P, R]"]:
    """Make a function of (work, refs..., config) a stage.

    `reuse=False` is for stages whose result lies outside the store; `fingerprint` digests what a stage reads from
    outside (given the stage's arguments by name), so that a changed file is noticed.
    """
    return lambda body: Stage(body, name, reuse, fingerprint)


class Stage(Generic[P, R]):
    """A callable stage; called with the pipeline run first, it returns its frozen result."""

    def __init__(
        self,
        body: Callable[Concatenate[StageWork, P], R],
        name: str,
        reuse: bool,
        fingerprint: Callable[..., str] | None,
    ) -> None:
        self.body = body
        self.name = name
        self.reuse = reuse
        self.fingerprint = fingerprint
        self.result_type: type[R] = get_type_hints(body)["return"]
        # The manifest decides about re-use; a cached Prefect state would hide the stage from the new MLflow run.
        # How long a retry waits is Prefect's setting PREFECT_TASKS_DEFAULT_RETRY_DELAY_SECONDS.
        self._task = task(
            name=name,
            task_run_name=name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=RETRIES,
            retry_jitter_factor=0.3,
            retry_condition_fn=may_succeed_later,
        )(self._attempt)

    def named(self, name: str) -> "Stage[P, R]":
        """Return the same stage under another name: two aligners of one method, two evaluations."""
        return Stage(self.body, name, self.reuse, self.fingerprint)

    def __call__(self, run: PipelineRun, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the stage, or re-use its result."""
        arguments = inspect.signature(self.body).bind(None, *args, **kwargs).arguments
        name = run.called(self.name)
        named = self._task if name == self.name else self._task.with_options(name=name, task_run_name=name)
        # A task that returns a state of its own hands that state back, not what is in it.
        result = named(run, arguments, return_state=True).result()
        assert isinstance(result, self.result_type)
        if run.until == name:
            raise StageReached(name)
        return result

    def _attempt(self, run: PipelineRun, arguments: dict[str, Any]) -> "State[R] | R":
        try:
            return self._execute(run, arguments)
        except BaseException as error:
            raise_clearly(error, run.called(self.name))

    def _execute(self, run: PipelineRun, arguments: dict[str, Any]) -> "State[R] | R":
        inputs = {name: value for name, value in list(arguments.items())[1:]}
        key = self._key(run, inputs)
        look = (lambda: self._finished(key)) if self.reuse and not run.fresh else (lambda: None)
        with turn(run, self.name, key, look=look) as entry:
            if entry is None:
                with gpu_slots(run, self.name) if computed_here(run, self.name) else nullcontext():
                    return self._compute(run, key, inputs)
        emit(StageEvent(stage=run.called(self.name), state="reused"))
        self._replay(run, entry, inputs)
        return Completed(
            data=self.result_type.model_validate(entry.result),
            name="Reused",
            message=f"computed by MLflow run {entry.record.run_id}",
        )

    def _compute(self, run: PipelineRun, key: str, inputs: dict[str, Any]) -> R:
        called = run.called(self.name)
        emit(StageEvent(stage=called, state="started"))
        forget_peak()
        watch = Progress(artifact_key(run, called))
        work = StageWork(run=run, stage=self.name, key=key, started=time.monotonic(), watch=watch)
        try:
            work.track(_flat(inputs), _refs(inputs))
            result = compute(work, self.body, self.result_type, inputs)
            work.log_metrics(result.metrics)
            work.log_outputs(result)
            entry = self._keep(work, key, inputs, result)
        except BaseException as error:
            self._give_up(work, inputs, error)
            raise
        work.close("FINISHED")
        shutil.rmtree(work.folder, ignore_errors=True)
        work.saved.forget()
        if work.tokens:  # it sampled or trained
            release_memory()
        write_headline(run, entry)
        emit(StageEvent(stage=called, state="finished", seconds=entry.record.seconds, metrics=result.metrics))
        return result

    def _keep(self, work: StageWork, key: str, inputs: dict[str, Any], result: R) -> StageEntry:
        """Write the manifest, which makes the work finished, and the run's own record of it."""
        entry = StageEntry(
            record=self._record(work, inputs, result),
            result=result.model_dump(mode="json"),
            points=tuple(work.points),
        )
        if self.reuse:
            artifact_store().write(self._manifest(key), _dump(entry))
        artifact_store().write(_entry_key(work.run, work.called), _dump(entry))
        return entry

    def _give_up(self, work: StageWork, inputs: dict[str, Any], error: BaseException) -> None:
        """Keep what another process can go on from, and say that the stage did not end well."""
        work.saved.copy()
        work.close("FAILED" if isinstance(error, Exception) else "KILLED")
        entry = StageEntry(record=self._record(work, inputs, None), result={})
        try:
            artifact_store().write(_entry_key(work.run, work.called), _dump(entry))
        except (StoreUnreachable, OSError) as second:  # the first error is the one to tell
            logger.warning("the store did not take the record of %s: %s", work.called, second)
        emit(StageEvent(stage=work.called, state="failed", seconds=time.monotonic() - work.started))

    def _manifest(self, key: str) -> str:
        return f"stages/{self.name}/{key}.json"

    def _finished(self, key: str) -> StageEntry | None:
        """Return the manifest's entry if the work is finished and every output is still there."""
        store = artifact_store()
        if (content := store.read(self._manifest(key))) is None:
            return None
        entry = StageEntry.model_validate_json(content)
        if missing := [name for name, ref in entry.record.outputs.items() if not store.exists(ref)]:
            logger.warning(
                "%s runs again: its output %s is no longer in the store", self.name, ", ".join(missing)
            )
            return None
        return entry

    def _replay(self, run: PipelineRun, entry: StageEntry, inputs: dict[str, Any]) -> None:
        """Show re-used work in the new MLflow run, with its metrics and where it came from."""
        origin = entry.record.reused_from or entry.record.run_id
        with start_stage_run(run, self.name, reused_from=origin) as tracked:
            log_inputs(tracked, _flat(inputs), _refs(inputs))
            tracked.log_points(entry.points)
        record = entry.record.model_copy(
            update={
                "name": run.called(self.name),
                "round": run.round,
                "status": "reused",
                "seconds": 0.0,
                "saved": entry.record.seconds,
                "ended": time.time(),
                "run_id": tracked.run_id,
                "reused_from": origin,
            }
        )
        replayed = entry.model_copy(update={"record": record})
        artifact_store().write(_entry_key(run, record.name), _dump(replayed))
        write_headline(run, replayed)

    def _record(self, work: StageWork, inputs: dict[str, Any], result: R | None) -> StageRecord:
        return StageRecord(
            name=work.called,
            round=work.run.round,
            status="failed" if result is None else "ran",
            seconds=round(time.monotonic() - work.started, 3),
            ended=time.time(),
            run_id=work.run_id,
            inputs=_refs(inputs),
            outputs=result.refs() if result else {},
            files=result.files if result else (),
            metrics=result.metrics if result else {},
            tokens=work.tokens,
            sampled_tokens=work.sampled_tokens,
            gradient_tokens=work.gradient_tokens,
            peak_bytes=peak_bytes(),
        )

    def _key(self, run: PipelineRun, inputs: dict[str, Any]) -> str:
        parts = {
            "stage": self.name,
            # What is given nothing is about the run itself.
            "inputs": {name: _identity(value) for name, value in inputs.items()} or run.run_id,
            "seed": run.seed,
            "precision": run.compute.precision,
            "code": code_digest(self.body.__module__),
        }
        if self.fingerprint:
            parts["outside"] = self.fingerprint(**inputs)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _identity(value: Any) -> Any:
    """Return what decides a result: a ref's digest (never its address), a section's values."""
    if isinstance(value, Ref):
        return value.digest
    if isinstance(value, BaseModel):
        return {name: _identity(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, tuple | list):
        return [_identity(item) for item in value]
    if isinstance(value, dict):
        return {key: _identity(item) for key, item in value.items()}
    return value


def _refs(inputs: dict[str, Any]) -> dict[str, Ref]:
    found: dict[str, Ref] = {}
    for name, value in inputs.items():
        if isinstance(value, Ref):
            found[name] = value
        elif isinstance(value, StageResult):
            found |= {f"{name}.{field}": ref for field, ref in value.refs().items()}
        elif isinstance(value, dict):
            found |= {f"{name}.{key}": item for key, item in _refs(value).items()}
    return found


def _flat(inputs: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the configuration among the inputs as dotted names and strings."""
    flat: dict[str, str] = {}
    for name, value in inputs.items():
        if isinstance(value, Ref | StageResult):
            continue
        if isinstance(value, BaseModel) and not isinstance(value, ComputeConfig):
            section = "" if name == "config" else f"{name}."
            flat |= _flat(
                {field: getattr(value, field) for field in type(value).model_fields}, prefix + section
            )
        elif isinstance(value, str | int | float | bool | None | tuple):
            flat[prefix + name] = str(value)
    return flat


def _entry_key(run: PipelineRun, name: str) -> str:
    return f"runs/{run.run_id}/{name}.json"


def _dump(entry: StageEntry) -> bytes:
    return entry.model_dump_json().encode()
