"""Runs, metrics and artifacts in MLflow, which is imported on first use.

Every call names its run: MLflow's own active run is thread-local and is lost between a flow and its tasks.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, ParamSpec, Self, TypeVar

from rlhf.adapters.mlflow_errors import ask, ask_patiently
from rlhf.adapters.promotion import Records, locked
from rlhf.adapters.reachable import require_tracking
from rlhf.adapters.registry import ModelRegistry
from rlhf.adapters.spool import Spool, deliver, measured
from schemas.refs import DatasetRef, Ref
from schemas.reports import MetricPoint
from schemas.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)
P = ParamSpec("P")
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
_BATCH_PARAMS = 100
_PARAM_LENGTH = 500


class TrackedRun:
    """One run; as a context manager it ends FINISHED, FAILED (error) or KILLED (interruption).

    Metrics never wait for a server that is away (see `spool`); everything else does, for `patience` seconds.
    """

    def __init__(self, client: "MlflowClient", run_id: str, *, spool: Path, patience: float) -> None:
        self.run_id = run_id
        self._client = client
        self._spool = Spool(client, run_id, spool)
        self._patience = patience
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
            self._ask(self._client.log_batch, self.run_id, params=rows[start : start + _BATCH_PARAMS])

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log values of one step; they are sent in batches."""
        self.log_points([MetricPoint(key=key, value=value, step=step) for key, value in metrics.items()])

    def log_points(self, points: Sequence[MetricPoint]) -> None:
        """Log values of several steps; batched, without those that are not finite."""
        for point in points:
            if not math.isfinite(point.value):
                logger.warning("%s is %s at step %d; it is not logged", point.key, point.value, point.step)
        self._spool.add(
            [measured(point.key, point.value, point.step) for point in points if math.isfinite(point.value)]
        )

    def flush(self) -> None:
        """Send the values that wait; what the server does not take now is delivered by a later process."""
        self._spool.leave()

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Copy a file to the run's artifacts."""
        self._ask(self._client.log_artifact, self.run_id, str(path), folder)

    def log_folder(self, path: Path, folder: str | None = None) -> None:
        """Copy a folder's content to the run's artifacts."""
        self._ask(self._client.log_artifacts, self.run_id, str(path), folder)

    def log_text(self, text: str, name: str) -> None:
        """Write a text artifact."""
        self._ask(self._client.log_text, self.run_id, text, name)

    def log_table(self, rows: dict[str, list[T]], name: str) -> None:
        """Write columns as a table that MLflow's pages compare across runs; `name` ends in `.json`."""
        self._ask(self._client.log_table, self.run_id, rows, name)

    def log_dataset(self, ref: Ref, name: str) -> None:
        """Record an input; MLflow keeps 36 characters of a digest, the tag `input.<name>` all of them."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = json.dumps({"num_rows": ref.rows}) if isinstance(ref, DatasetRef) else None
        digest = ref.digest.removeprefix("sha256:")[:36]
        place = "s3" if ref.uri.startswith("s3://") else "local"
        dataset = Dataset(name, digest, place, json.dumps({"uri": ref.uri}), profile=profile)
        self._ask(
            self._client.log_inputs,
            self.run_id,
            datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", name)])],
        )
        self.set_tags({f"input.{name}": ref.digest})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        self._ask(
            self._client.log_batch, self.run_id, tags=[RunTag(name, value) for name, value in tags.items()]
        )

    def describe(self, text: str) -> None:
        """Write the description that MLflow shows on the run's page, in Markdown."""
        self.set_tags({"mlflow.note.content": text})

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Send what is buffered and end the run; a server that is down does not undo finished work."""
        if not self._finished:
            self._spool.end(status)
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

    def _ask(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return ask_patiently(self._patience, call, *arguments, **named)


class Tracking:
    """One experiment and the model registry beside it."""

    def __init__(self, client: "MlflowClient", experiment_id: str, settings: Settings) -> None:
        self._client = client
        self.experiment_id = experiment_id
        self._settings = settings

    @property
    def identity(self) -> str:
        """Return what tells this server or database from others, without its address."""
        return _identity(self._settings)

    def start_run(self, name: str, *, parent: str | None, tags: Mapping[str, str]) -> TrackedRun:
        """Start a run, below `parent` if there is one."""
        above = {"mlflow.parentRunId": parent} if parent else {}
        run = ask_patiently(
            self._settings.tracking_patience,
            self._client.create_run,
            self.experiment_id,
            tags={**tags, **above},
            run_name=name,
        )
        return self.run(run.info.run_id)

    def run(self, run_id: str) -> TrackedRun:
        """Return a run that was started before, to add to it; who started it ends it."""
        return TrackedRun(
            self._client,
            run_id,
            spool=_spool(self._settings),
            patience=self._settings.tracking_patience,
        )

    def unfinished(self) -> dict[str, list[str]]:
        """Return the runs of all experiments that have not ended, by the process that computes them (tag `process`)."""
        found: dict[str, list[str]] = {}
        for run in self._search("attributes.status = 'RUNNING' and tags.process LIKE '%'"):
            found.setdefault(run.data.tags["process"], []).append(run.info.run_id)
        return found

    def kept_runs(self, before: float) -> list[str]:
        """Return the pipeline runs that are at work, began after `before` (seconds since 1970), or have the tag `keep`."""
        return [
            run.info.run_id
            for run in self._search("tags.config_digest LIKE '%'")
            if run.info.status == "RUNNING" or run.info.start_time >= 1000 * before or "keep" in run.data.tags
        ]

    def _search(self, which: str) -> "Iterator[Run]":
        experiments = [found.experiment_id for found in ask(self._client.search_experiments)]
        page: str | None = None
        while page != "":
            runs = ask(self._client.search_runs, experiments, which, page_token=page)
            yield from runs
            page = runs.token or ""

    def models(self) -> tuple[str, ...]:
        """Return the names of all registered models."""
        return tuple(sorted(found.name for found in ask(self._client.search_registered_models)))

    def registry(self, model: str, records: Records) -> ModelRegistry:
        """Return a registered model; `records` keeps the ledger of its promotions."""
        return ModelRegistry(self._client, model, self._settings.locks, records)


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
    # The first client creates a database's tables, which two processes must not do at once.
    with locked(settings.locks, "tracking"):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        deliver(client, _spool(settings))
        found = ask(client.get_experiment_by_name, experiment)
        if found is None:
            return Tracking(client, ask(client.create_experiment, experiment, artifacts), settings)
        if found.lifecycle_stage == "deleted":
            ask(client.restore_experiment, found.experiment_id)
    return Tracking(client, found.experiment_id, settings)


def _spool(settings: Settings) -> Path:
    """Return the folder of what this tracking server, and no other, is to get."""
    return settings.home / "spool" / _identity(settings)


def _identity(settings: Settings) -> str:
    return hashlib.sha256(settings.tracking_uri.encode()).hexdigest()[:16]
