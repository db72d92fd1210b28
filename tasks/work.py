"""What a stage body works with: refs in, tables and models out, metrics on the way."""

import ctypes
import gc
import logging
import math
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from prefect.context import get_run_context
from prefect.exceptions import MissingContextError

from rlhf.adapters.object_store import ObjectStore, open_store
from rlhf.adapters.registry import ModelRegistry
from rlhf.adapters.tracking import TrackedRun, Tracking, connect
from schemas.pipeline import PipelineRun
from schemas.placing import Delivery
from schemas.refs import DatasetRef, FileRef, ModelRef, Ref
from schemas.reports import MetricPoint, StageResult
from schemas.settings import Settings
from tasks.checkpoints import Checkpoints
from tasks.progress import StageEvent, emit

if TYPE_CHECKING:
    from rlhf.models.precision import Precision
    from rlhf.training.step import StepMetrics

logger = logging.getLogger(__name__)


@cache
def _open_store(root: str, folder: Path) -> ObjectStore:
    return open_store(root, folder)


def artifact_store() -> ObjectStore:
    """Return the object store that the environment names."""
    settings = Settings()
    return _open_store(settings.store, settings.cache)


@cache
def _connect(settings: Settings, experiment: str) -> Tracking:
    return connect(settings, experiment)


def connect_tracking(experiment: str) -> Tracking:
    """Return the connection to the tracking server that the environment names."""
    return _connect(Settings(), experiment)


def model_registry(name: str) -> ModelRegistry:
    """Return the registered model of a recipe, with the ledger of its promotions in the store."""
    return connect_tracking(name).registry(name, artifact_store())


class StageWork:
    """The hands of a stage: it fetches, publishes, logs, and cleans up."""

    def __init__(
        self,
        *,
        run: PipelineRun,
        stage: str,
        key: str,
        started: float,
        watch: "Callable[[StepMetrics], None]" = lambda step: None,
        tracked: str | None = None,
        shared: bool = False,
    ) -> None:
        """Begin in an empty folder, or in one that is `shared` with other processes of this machine.

        `tracked` is an MLflow run that another process has opened and will end.
        """
        self.run = run
        self.watch = watch
        self.key = key
        self.stage = stage
        self.called = run.called(stage)
        self.started = started
        self._shared = shared
        self.points: list[MetricPoint] = []
        self.tokens = self.sampled_tokens = self.gradient_tokens = 0
        self._last_step = 0
        home = Settings().home
        self.folder = home / "work" / key
        if not shared:
            shutil.rmtree(self.folder, ignore_errors=True)  # what a killed process has left
            self.folder.mkdir(parents=True)
        self._store = artifact_store()
        self.saved = Checkpoints(self._store, stage, key, home / "checkpoints" / key)
        self._tracked = connect_tracking(run.name).run(tracked) if tracked else None

    # What goes in

    def fetch(self, ref: Ref) -> Path:
        """Return a local path to the bytes of a ref, verified."""
        return self._store.fetch(ref)

    def read(self, ref: DatasetRef) -> pl.DataFrame:
        """Return the table of a ref, verified."""
        return pl.read_parquet(self.fetch(ref))

    @cached_property
    def checkpoints(self) -> Path:
        """A folder for the trainer's checkpoints, with the latest one that this or another machine has left."""
        if not self._shared and (found := self.saved.restore()):
            logger.info("%s goes on from %s", self.called, found)
            self.tracked.set_tags({"continued_from": found})
        return self.saved.folder

    @cached_property
    def precision(self) -> "Precision":
        """Threads and number type for this stage, chosen once per process and recorded with the run."""
        from rlhf.models.precision import choose

        chosen = choose(self.run.compute)
        self.tracked.set_tags({"compute.threads": str(chosen.threads), "compute.dtype": str(chosen.dtype)})
        return chosen

    # What comes out

    def publish_model(self, folder: Path, role: Literal["policy", "reward", "best_of_n"]) -> ModelRef:
        """Put a model folder into the store and into the stage's MLflow run."""
        uri, digest = self._store.publish(folder)
        self.tracked.log_folder(folder, "model")
        return ModelRef(uri=uri, digest=digest, role=role)

    def publish_table(self, frame: pl.DataFrame, kind: str) -> DatasetRef:
        """Write a table as Parquet (byte-identical for equal tables) and put it into the store."""
        path = self.folder / f"{kind}.parquet"
        frame.write_parquet(path, compression="zstd", statistics=False)
        uri, digest = self._store.publish(path)
        return DatasetRef(uri=uri, digest=digest, kind=kind, rows=frame.height)

    def publish_file(self, path: Path, artifact_folder: str | None = None) -> FileRef:
        """Put a file into the store and into the stage's MLflow run."""
        uri, digest = self._store.publish(path)
        self.tracked.log_file(path, artifact_folder)
        return FileRef(uri=uri, digest=digest)

    # What is told on the way

    @property
    def tracked(self) -> TrackedRun:
        """The stage's MLflow run."""
        assert self._tracked is not None, "the stage has not begun"
        return self._tracked

    @property
    def run_id(self) -> str:
        """The stage's MLflow run id; empty when tracking could not be reached."""
        return self._tracked.run_id if self._tracked else ""

    def track(self, params: Mapping[str, str], inputs: Mapping[str, Ref]) -> None:
        """Open the stage's MLflow run with its parameters and inputs."""
        self._tracked = start_stage_run(self.run, self.stage)
        log_inputs(self._tracked, params, inputs)

    def on_step(self, step: "StepMetrics") -> None:
        """Log one step of training under the stage's name, and show it."""
        self.tokens += step.tokens
        self.sampled_tokens += step.sampled_tokens
        self.gradient_tokens += step.gradient_tokens
        self._log({f"{self.stage}/{name}": value for name, value in step.metrics.items()}, step.step)
        self.watch(step)
        self.saved.copy_when_due()
        emit(
            StageEvent(
                stage=self.called,
                state="step",
                step=step.step,
                total=step.total,
                tokens=self.tokens,
                seconds=time.monotonic() - self.started,
                metrics=step.metrics,
            )
        )

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log a stage's final numbers under its name, at its last step; what has a curve keeps it as it is."""
        curves = {point.key for point in self.points}
        final = {f"{self.stage}/{name}": value for name, value in metrics.items()}
        self._log({key: value for key, value in final.items() if key not in curves}, self._last_step)

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        metrics = {key: value for key, value in metrics.items() if math.isfinite(value)}
        self._last_step = step
        self.tracked.log_metrics(metrics, step)
        self.points += [MetricPoint(key=key, value=value, step=step) for key, value in metrics.items()]

    def delivery(self, result: StageResult) -> Delivery:
        """Return what was computed here for a stage that another process has begun."""
        return Delivery(
            result=result.model_dump(mode="json"),
            points=tuple(self.points),
            tokens=self.tokens,
            sampled_tokens=self.sampled_tokens,
            gradient_tokens=self.gradient_tokens,
        )

    def take_over(self, found: Delivery) -> None:
        """Know what another process has logged and counted for this stage."""
        self.points += found.points
        self.tokens += found.tokens
        self.sampled_tokens += found.sampled_tokens
        self.gradient_tokens += found.gradient_tokens
        self._last_step = found.points[-1].step if found.points else 0

    def log_outputs(self, result: StageResult) -> None:
        """Tag the stage's run with the refs that it published."""
        self.tracked.set_tags(
            {f"output.{name}": f"{ref.uri} {ref.digest}" for name, ref in result.refs().items()}
        )

    def flush(self) -> None:
        """Send what was logged; who opened the MLflow run ends it."""
        self.tracked.flush()

    def close(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End the stage's MLflow run."""
        if self._tracked:
            self._tracked.finish(status)


def release_memory() -> None:
    """Give back what a stage leaves behind: trainers hold themselves in cycles, and glibc keeps what is freed."""
    gc.collect()
    gc.freeze()  # what is left are modules: looking through them again costs half a second each time
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # absent outside glibc
        trim(0)


def start_stage_run(run: PipelineRun, stage: str, **origin: str) -> TrackedRun:
    """Open a stage's MLflow run, tagged with what it belongs to and, if it computes nothing, with its origin."""
    turn = {} if run.round is None else {"round": str(run.round)}
    return connect_tracking(run.name).start_run(
        run.called(stage),
        parent=run.run_id,
        tags={
            "stage": stage,
            "seed": str(run.seed),
            "process": run.token,
            **turn,
            **code_tags(),
            **_prefect_tags(),
            **origin,
        },
    )


def log_inputs(tracked: TrackedRun, params: Mapping[str, str], inputs: Mapping[str, Ref]) -> None:
    """Log what a stage was given: its configuration as parameters, its refs as data sets."""
    tracked.log_params(params)
    for name, ref in inputs.items():
        tracked.log_dataset(ref, name)


@cache
def code_tags() -> dict[str, str]:
    """Return tags that say which code runs: the git revision where there is one, and the Python version."""
    here = Path(__file__).parent
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - git is looked up on the PATH on purpose
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    revision = git.stdout.strip() if git.returncode == 0 else "not a git checkout"
    return {"code_revision": revision, "python": platform.python_version()}


def _prefect_tags() -> dict[str, str]:
    try:
        context: Any = get_run_context()
    except MissingContextError:
        return {}
    return {
        "prefect.task_run_id": str(context.task_run.id),
        "prefect.flow_run_id": str(context.task_run.flow_run_id),
    }
