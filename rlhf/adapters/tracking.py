"""Runs, metrics and artifacts in MLflow, which is imported on first use.

Every call names its run: MLflow's own active run is thread-local and is lost between a flow and its tasks.
"""

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from rlhf.adapters.mlflow_errors import ask
from rlhf.adapters.promotion import Records, locked
from rlhf.adapters.reachable import require_tracking
from rlhf.adapters.registry import ModelRegistry
from schemas.errors import TrackingUnreachable
from schemas.refs import DatasetRef, Ref
from schemas.reports import MetricPoint
from schemas.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)
T = TypeVar("T")

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # the default of 7 keeps a run waiting for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # With a server it prints an address per run, where `--json` promises one object and nothing else.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_FLUSH_SECONDS = 2.0
_PAUSE_SECONDS = 30.0
_FLUSH_POINTS = 500
_BATCH_METRICS = 1000  # the most that the server takes at once
_BATCH_PARAMS = 100
_PARAM_LENGTH = 500


class TrackedRun:
    """One run; as a context manager it ends FINISHED, FAILED (error) or KILLED (interruption)."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._points: list[Metric] = []
        self._next_flush = 0.0
        self._finished = False

    def log_params(self, params: Mapping[str, str]) -> None:
        """Log flat parameters; a long value goes to the artifact `params/<name>.txt`."""
        from mlflow.entities import Param

        long = {name: value for name, value in params.items() if len(value) > _PARAM_LENGTH}
        for name, value in long.items():
            self.log_text(value, f"params/{name}.txt")
        short = {**params, **{name: f"see params/{name}.txt" for name in long}}
        rows = [Param(name, value) for name, value in short.items()]
        for start in range(0, len(rows), _BATCH_PARAMS):
            ask(self._client.log_batch, self.run_id, params=rows[start : start + _BATCH_PARAMS])

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log values of one step; they are sent in batches."""
        self.log_points([MetricPoint(key=key, value=value, step=step) for key, value in metrics.items()])

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        """Log values of several steps; batched, without those that are not finite."""
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        for point in points:
            if math.isfinite(point.value):
                self._points.append(Metric(point.key, point.value, now, point.step))
            else:
                logger.warning("%s is %s at step %d; it is not logged", point.key, point.value, point.step)
        if time.monotonic() >= self._next_flush or len(self._points) >= _FLUSH_POINTS:
            self._flush()

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Copy a file to the run's artifacts."""
        ask(self._client.log_artifact, self.run_id, str(path), folder)

    def log_folder(self, path: Path, folder: str | None = None) -> None:
        """Copy a folder's content to the run's artifacts."""
        ask(self._client.log_artifacts, self.run_id, str(path), folder)

    def log_text(self, text: str, name: str) -> None:
        """Write a text artifact."""
        ask(self._client.log_text, self.run_id, text, name)

    def log_table(self, rows: dict[str, list[T]], name: str) -> None:
        """Write columns as a table that MLflow's pages compare across runs; `name` ends in `.json`."""
        ask(self._client.log_table, self.run_id, rows, name)

    def log_dataset(self, ref: Ref, name: str) -> None:
        """Record an input; MLflow keeps 36 characters of a digest, the tag `input.<name>` all of them."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = json.dumps({"num_rows": ref.rows}) if isinstance(ref, DatasetRef) else None
        digest = ref.digest.removeprefix("sha256:")[:36]
        place = "s3" if ref.uri.startswith("s3://") else "local"
        dataset = Dataset(name, digest, place, json.dumps({"uri": ref.uri}), profile=profile)
        ask(
            self._client.log_inputs,
            self.run_id,
            datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", name)])],
        )
        self.set_tags({f"input.{name}": ref.digest})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        ask(self._client.log_batch, self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def describe(self, text: str) -> None:
        """Write the description that MLflow shows on the run's page, in Markdown."""
        self.set_tags({"mlflow.note.content": text})

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Send what is buffered and end the run; a server that is down does not undo finished work."""
        if self._finished:
            return
        self._flush()
        if self._points:
            logger.warning("%d values of run %s were not logged", len(self._points), self.run_id)
        try:
            ask(self._client.set_terminated, self.run_id, status)
        except TrackingUnreachable as error:
            logger.warning("Run %s stays RUNNING: %s", self.run_id, error)
        self._finished = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish("FINISHED")
        else:
            self.finish("FAILED" if isinstance(error, Exception) else "KILLED")

    def _flush(self) -> None:
        pause = _FLUSH_SECONDS
        while self._points:
            try:
                ask(self._client.log_batch, self.run_id, metrics=self._points[:_BATCH_METRICS])
            except TrackingUnreachable as error:
                # Training goes on; the values stay here and are offered again.
                logger.warning("%d values wait: %s", len(self._points), error)
                pause = _PAUSE_SECONDS
                break
            del self._points[:_BATCH_METRICS]
        self._next_flush = time.monotonic() + pause


class Tracking:
    """One experiment and the model registry beside it."""

    def __init__(self, client: "MlflowClient", experiment_id: str, locks: Path) -> None:
        self._client = client
        self.experiment_id = experiment_id
        self._locks = locks

    def start_run(self, name: str, *, parent: str | None, tags: Mapping[str, str]) -> TrackedRun:
        """Start a run, below `parent` if there is one."""
        above = {"mlflow.parentRunId": parent} if parent else {}
        run = ask(self._client.create_run, self.experiment_id, tags={**tags, **above}, run_name=name)
        return TrackedRun(self._client, run.info.run_id)

    def run(self, run_id: str) -> TrackedRun:
        """Return a run that was started before, to add to it; who started it ends it."""
        return TrackedRun(self._client, run_id)

    def models(self) -> tuple[str, ...]:
        """Return the names of all registered models."""
        return tuple(sorted(found.name for found in ask(self._client.search_registered_models)))

    def registry(self, model: str, records: Records) -> ModelRegistry:
        """Return a registered model; `records` keeps the ledger of its promotions."""
        return ModelRegistry(self._client, model, self._locks, records)


def connect(settings: Settings, experiment: str) -> Tracking:
    """Open the tracking store and the experiment, creating what is missing."""
    uri = settings.tracking_uri
    require_tracking(uri)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)  # two dozen lines for a new database
    artifacts = None if uri.startswith("http") else (settings.mlflow_artifacts / experiment).as_uri()
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    # The first call creates a database's tables, which two processes must not do at once.
    with locked(settings.locks, "tracking"):
        found = ask(client.get_experiment_by_name, experiment)
        if found is None:
            return Tracking(client, ask(client.create_experiment, experiment, artifacts), settings.locks)
        if found.lifecycle_stage == "deleted":
            ask(client.restore_experiment, found.experiment_id)
    return Tracking(client, found.experiment_id, settings.locks)
