"""Open a pipeline run in MLflow, close it whatever happens, and tell its story."""

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from pydantic import JsonValue

from rlhf.adapters.presence import present
from rlhf.adapters.tracking import TrackedRun
from schemas.config import RunConfig
from schemas.pipeline import PipelineRun
from schemas.reports import (
    EvaluationResult,
    MetricPoint,
    Promotion,
    ReportResult,
    RunSummary,
    StageEntry,
    StageResult,
)
from schemas.sweep import SweptRun
from tasks.failures import raise_clearly
from tasks.reap import reap
from tasks.stage import StageReached
from tasks.work import artifact_store, code_tags, connect_tracking

logger = logging.getLogger(__name__)
R = TypeVar("R", bound=StageResult)


def connect_early(experiment: str) -> None:
    """Import MLflow and open its database while Prefect's server starts; each needs seconds of a core.

    What fails here fails again, and is told, where the run begins.
    """
    with suppress(Exception):
        connect_tracking(experiment)


@contextmanager
def pipeline_run(
    config: RunConfig, *, fresh: bool, until: str | None = None, swept: SweptRun | None = None
) -> Iterator[PipelineRun]:
    """Open the run that stages belong to, with the resolved configuration; it ends with the block's status."""
    content = _written(config)
    tracking, flow_run_id = connect_tracking(config.name), _flow_run_id()
    reap(tracking, mine=flow_run_id)
    with present(artifact_store(), tracking=tracking.identity, flow_run_id=flow_run_id) as process:
        tracked = tracking.start_run(
            swept.label if swept else config.name,
            parent=swept.sweep if swept else None,
            tags={
                "recipe": config.name,
                "config_digest": config_digest(config),
                "seed": str(config.seed),
                "process": process.token,
                **code_tags(),
                **({"prefect.flow_run_id": flow_run_id} if flow_run_id else {}),
            },
        )
        run = PipelineRun(
            run_id=tracked.run_id,
            name=config.name,
            token=process.token,
            seed=config.seed,
            compute=config.compute,
            fresh=fresh,
            until=until,
        )
        with tracked:
            artifact_store().write(f"runs/{run.run_id}/config.json", content.encode())
            _log_config(tracked, config, content)
            try:
                yield run
            except Pause:
                # The resumed run is another MLflow run; both carry the flow run's id.
                tracked.set_tags({"suspended": "waits for people"})
                raise
            except StageReached as reached:
                logger.info("stopped after stage %s, as asked", reached)
            except OSError as error:
                raise_clearly(error, config.name)
            tracked.log_points(headline(run.run_id))


def _log_config(tracked: TrackedRun, config: RunConfig, content: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(content, encoding="utf-8")
        tracked.log_file(path)
    tracked.log_params({key: str(value) for key, value in as_overrides(config).items()})


def config_digest(config: RunConfig) -> str:
    """Return what identifies a resolved tree."""
    return hashlib.sha256(_written(config).encode()).hexdigest()


def _written(config: RunConfig) -> str:
    return config.model_dump_json(indent=2)


def as_overrides(config: RunConfig) -> dict[str, JsonValue]:
    """Return the tree as overrides name it: dotted, each aligner by its name, sorted."""
    tree = config.model_dump(mode="json")
    tree |= {aligner["name"]: aligner for aligner in tree.pop("aligners")}
    flat: dict[str, JsonValue] = {}
    pending = [("", tree)]
    while pending:
        prefix, node = pending.pop()
        for key, value in node.items():
            if isinstance(value, dict):
                pending.append((f"{prefix}{key}.", value))
            else:
                flat[f"{prefix}{key}"] = value
    return dict(sorted(flat.items()))


def _flow_run_id() -> str | None:
    flow_run = FlowRunContext.get()
    return str(flow_run.flow_run.id) if flow_run and flow_run.flow_run else None


def headline(run_id: str) -> list[MetricPoint]:
    """Return the numbers by which runs are compared: each aligner's evaluation, and the reward model's accuracy.

    A round is a step, so that MLflow draws the win rate over the rounds and compares runs by their last one. Where there is
    one round only its step is 0: MLflow draws such values as bars.
    """
    points: list[MetricPoint] = []
    for entry in entries(run_id).values():
        name, found, turn = entry.record.stage, entry.record.metrics, entry.record.round or 0
        if name.startswith("evaluate-"):
            aligner = name.removeprefix("evaluate-")
            shown = {f"{aligner}/{key}": value for key, value in found.items()}
        elif name == "reward" and "held_out_accuracy" in found:
            shown = {"reward/held_out_accuracy": found["held_out_accuracy"]}
        else:
            continue
        points += [MetricPoint(key=key, value=value, step=turn) for key, value in shown.items()]
    # MLflow's page of a run lists metrics as they came: what people look for stands first.
    return sorted(points, key=lambda point: not point.key.endswith("/win_rate"))


def entries(run_id: str) -> dict[str, StageEntry]:
    """Return what the store keeps of a run's stages, by name, in the order in which they ended."""
    store = artifact_store()
    keys = [key for key in store.list_keys(f"runs/{run_id}/") if not key.endswith("/config.json")]
    found = [StageEntry.model_validate_json(content) for key in keys if (content := store.read(key))]
    return {entry.record.name: entry for entry in sorted(found, key=lambda entry: entry.record.ended)}


def result_of(found: dict[str, StageEntry], name: str, kind: type[R]) -> R | None:
    """Return a stage's result from the run's entries; None when it did not run or failed."""
    entry = found.get(name)
    if entry is None or entry.record.status == "failed":
        return None
    return kind.model_validate(entry.result)


def summarise(run_id: str) -> RunSummary:
    """Return the run's story from the store."""
    found = entries(run_id)
    evaluated = {
        name: result_of(found, name, EvaluationResult) for name in found if name.startswith("evaluate-")
    }
    page = result_of(found, "report", ReportResult)
    return RunSummary(
        run_id=run_id,
        stages=tuple(entry.record for entry in found.values()),
        evaluation={
            name.removeprefix("evaluate-"): result.evaluation for name, result in evaluated.items() if result
        },
        promotion=result_of(found, "register", Promotion) or Promotion(verdict="refused"),
        report=page.page.uri if page else "",
    )
