"""Stage `report`: one self-contained page that tells the run's story from what the store keeps of it."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from schemas.config import RunConfig
from schemas.errors import NotFound
from schemas.refs import DatasetRef
from schemas.reports import (
    EvaluationResult,
    GateDecision,
    MetricPoint,
    ProbeResult,
    Promotion,
    ReportResult,
    RewardResult,
    ValidatedData,
)
from tasks.run import entries, result_of
from tasks.stage import stage
from tasks.work import StageWork, artifact_store

if TYPE_CHECKING:
    from rlhf.report.content import PairedResponses, ReportContent

SHOWN_RESPONSES = 24


@stage("report", reuse=False)
def write_report(work: StageWork) -> ReportResult:
    """Write the page, and log it to the run."""
    from rlhf.report.page import render

    path = work.folder / "report.html"
    path.write_text(render(read_content(work.run.run_id)), encoding="utf-8")
    return ReportResult(page=work.publish_file(path))


def read_content(run_id: str) -> "ReportContent":
    """Collect everything that the page shows of a run; raises NotFound for a run that is not known or not done."""
    from rlhf.report.content import ReportContent

    stored = artifact_store().read(f"runs/{run_id}/config.json")
    found = entries(run_id)
    if stored is None or (sft := result_of(found, "evaluate-sft", EvaluationResult)) is None:
        raise NotFound(
            f"The store knows no evaluated run {run_id!r}; wanted the parent run id that `rlhf run` printed."
        )
    config = RunConfig.model_validate_json(stored)
    names = [aligner.name for aligner in config.aligners]
    judged = {
        name: result for name in names if (result := result_of(found, f"evaluate-{name}", EvaluationResult))
    }
    validated = result_of(found, "validate", ValidatedData)
    probes = result_of(found, "probe", ProbeResult)
    return ReportContent(
        title=config.name,
        config=config,
        stages=tuple(entry.record for entry in found.values()),
        validation=validated.reports if validated else (),
        histories={name: _histories(entry.points) for name, entry in found.items()},
        reward=result_of(found, "reward", RewardResult),
        probes=probes.probes if probes else (),
        sft=sft.evaluation,
        evaluations={name: result.evaluation for name, result in judged.items()},
        curves={name: result.curve for name, result in judged.items() if result.curve},
        responses=_responses({"sft": sft, **judged}, config),
        gate=result_of(found, "gate", GateDecision) or GateDecision(rules={}),
        promotion=result_of(found, "register", Promotion) or Promotion(verdict="refused"),
        run_id=run_id,
        command=f"rlhf run {config.name} seed={config.seed} --fresh",
        finished_at=datetime.now(UTC),
    )


def _histories(points: tuple[MetricPoint, ...]) -> dict[str, tuple[tuple[int, float], ...]]:
    histories: dict[str, list[tuple[int, float]]] = {}
    for point in points:
        histories.setdefault(point.key.partition("/")[2], []).append((point.step, point.value))
    return {name: tuple(values) for name, values in histories.items() if len(values) > 1}


def _responses(results: dict[str, EvaluationResult], config: RunConfig) -> "tuple[PairedResponses, ...]":
    """Return the first prompts with every policy's response side by side."""
    from rlhf.data.helpdesk.world import World
    from rlhf.evaluation.judges import with_gold
    from rlhf.report.content import Answer, PairedResponses

    world = World(config.seed) if config.data.source == "helpdesk" else None
    tables = {name: with_gold(_head(result.samples), world) for name, result in results.items()}
    columns = ("response", "score", "gold", "finished")
    rows = {name: list(table.select(columns).iter_rows()) for name, table in tables.items()}
    prompts = tables["sft"]["prompt"].to_list()
    return tuple(
        PairedResponses(
            prompt="\n".join(message["content"] for message in prompt),
            answers=tuple(
                Answer(policy=name, text=text, score=score, gold=gold, finished=finished)
                for name, answers in rows.items()
                for text, score, gold, finished in [answers[index]]
            ),
        )
        for index, prompt in enumerate(prompts)
    )


def _head(samples: DatasetRef) -> pl.DataFrame:
    return pl.read_parquet(artifact_store().fetch(samples)).head(SHOWN_RESPONSES)
