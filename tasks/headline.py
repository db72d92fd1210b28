"""What a stage shows of itself: one Markdown text on Prefect's page and in MLflow, and its progress while it lasts."""

import logging
import re
import time
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from schemas.errors import TrackingUnreachable
from schemas.pipeline import PipelineRun
from schemas.reports import StageEntry
from schemas.settings import Settings
from schemas.units import duration
from tasks.work import connect_tracking

if TYPE_CHECKING:
    from rlhf.training.step import StepMetrics

logger = logging.getLogger(__name__)

LONG_SECONDS = 20.0
"""A stage that lasts longer shows its progress on Prefect's page."""
BETWEEN_SECONDS = 10.0
PAGES = "http://127.0.0.1:5000"
"""Where `rlhf ui` shows MLflow's pages unless it is told otherwise."""


def headline(run: PipelineRun, entry: StageEntry) -> str:
    """Return a finished stage in Markdown: numbers, refs, and where it is in MLflow."""
    record = entry.record
    status = "re-used" if record.status == "reused" else f"ran in {duration(record.seconds)}"
    origin = f", computed by `{record.reused_from}`" if record.reused_from else ""
    lines = [
        f"# {record.name}: {status}",
        f"[MLflow run]({page(run, record.run_id)}) `{record.run_id}` of [pipeline run]({page(run, run.run_id)}) "
        f"`{run.run_id}`{origin}",
        "",
        "| metric | value |",
        "|---|---|",
        *(f"| {name} | {value:.4g} |" for name, value in record.metrics.items()),
        "",
        *(f"- {name}: `{ref.uri}` `{ref.digest[:19]}`" for name, ref in record.outputs.items()),
    ]
    return "\n".join(lines)


def page(run: PipelineRun, run_id: str) -> str:
    """Return the address of a run's MLflow page; of a local database it answers while `rlhf ui` runs."""
    uri = Settings().tracking_uri
    base = uri.rstrip("/") if uri.startswith(("http://", "https://")) else PAGES
    return f"{base}/#/experiments/{connect_tracking(run.name).experiment_id}/runs/{run_id}"


def write_headline(run: PipelineRun, entry: StageEntry) -> None:
    """Show a finished stage's headline on its Prefect page and as the description of its MLflow run."""
    text = headline(run, entry)
    try:
        create_markdown_artifact(text, key=artifact_key(run, entry.record.name))
    except httpx.HTTPError as error:  # a page less; the stage is done all the same
        logger.warning("Prefect did not take the headline of %s: %s", entry.record.name, error)
    if entry.record.run_id:
        try:
            connect_tracking(run.name).run(entry.record.run_id).describe(text)
        except TrackingUnreachable as error:  # the stage is done all the same
            logger.warning("Run %s has no description: %s", entry.record.run_id, error)


def artifact_key(run: PipelineRun, name: str) -> str:
    """Return the key under which a stage's artifacts of all runs stand; Prefect takes small letters, digits, dashes."""
    return re.sub("[^a-z0-9]", "-", f"{run.name}-{name}")


class Progress:
    """A long stage's progress on Prefect's page; what Prefect does not take is not worth a training."""

    def __init__(self, key: str) -> None:
        self._key = f"{key}-progress"
        self._next = time.monotonic() + LONG_SECONDS
        self._artifact: UUID | None = None

    def __call__(self, step: "StepMetrics") -> None:
        """Show how far the stage is, now and then."""
        ended = step.step == step.total and self._artifact is not None
        if TaskRunContext.get() is None or (time.monotonic() < self._next and not ended):
            return
        self._next = time.monotonic() + BETWEEN_SECONDS
        share, said = 100.0 * step.step / max(step.total, 1), f"step {step.step} of {step.total}"
        try:
            if self._artifact is None:
                created = create_progress_artifact(share, key=self._key, description=said)
                assert isinstance(created, UUID)
                self._artifact = created
            else:
                update_progress_artifact(self._artifact, progress=share, description=said)
        except (httpx.HTTPError, OSError) as error:
            logger.warning("Prefect did not take the progress: %s", error)
