"""Stage `report`: one self-contained page that tells the run's story from what the store keeps of it."""

import json
import shlex
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml
from pydantic import JsonValue

from schemas.config import RunConfig
from schemas.config.loading import load_config, shipped_recipes
from schemas.config.run import of_round
from schemas.errors import ConfigError, NotFound
from schemas.evaluation import SHOWN_SAMPLES
from schemas.reports import (
    EvaluationResult,
    GateDecision,
    MetricPoint,
    PolicyResult,
    ProbeResult,
    Promotion,
    ReportResult,
    RewardResult,
    ValidatedData,
)
from schemas.settings import Settings
from schemas.validation import ValidationReport
from tasks.estimate import kept_estimate
from tasks.run import as_overrides, entries, result_of
from tasks.stage import stage
from tasks.work import StageWork, artifact_store, connect_tracking

if TYPE_CHECKING:
    from rlhf.report.content import Answer, PairedResponses, ReportContent

GENERATED = {
    "held_out": "held-out prompts", "held_out_text": "held-out text", "red_team": "hostile prompts",
    "held_out_demonstrations": "held-out demonstrations", "benign": "harmless prompts that look hostile",
}  # fmt: skip
"""Tables of the helpdesk world that their kind alone does not name."""


@stage("report", reuse=False)
def write_report(work: StageWork) -> ReportResult:
    """Write the page; it, its charts and the responses also go to the parent run, where people look first."""
    from rlhf.report.note import note
    from rlhf.report.page import plots, render

    content, found = read_content(work.run.run_id), entries(work.run.run_id)
    path = work.folder / "report.html"
    path.write_text(render(content), encoding="utf-8")
    charts = work.folder / "plots"
    charts.mkdir()
    for name, drawn in plots(content).items():
        (charts / name).write_text(drawn, encoding="utf-8")
    parent = connect_tracking(work.run.name).run(work.run.run_id)
    for name, ref in (found["validate"].record.outputs if "validate" in found else {}).items():
        parent.log_dataset(ref, name)
    parent.log_file(path)
    parent.log_folder(charts, "plots")
    if content.responses:
        parent.log_table(_columns(content.responses), "responses.json")
    parent.describe(note(content))
    parent.set_tags(
        {
            "verdict": content.promotion.verdict,
            "judge": content.config.evaluate.judge,
            "data": content.config.data.source,
            "base": content.config.base.source if content.config.base else "pretrained here",
        }
    )
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
    rounds = range(1, config.labelling.rounds + 1)
    last = max((turn for turn in rounds if of_round("reward", turn) in found), default=1)
    reward = result_of(found, of_round("reward", last), RewardResult)
    probes = result_of(found, of_round("probe", last), ProbeResult)
    aligners = [aligner.name for aligner in config.aligners]
    judged = {
        of_round(name, turn): result
        for turn in rounds
        for name in aligners
        if (result := result_of(found, of_round(f"evaluate-{name}", turn), EvaluationResult))
    }
    newest = {name: judged[name] for name in (of_round(name, last) for name in aligners) if name in judged}
    validated = result_of(found, "validate", ValidatedData)
    return ReportContent(
        title=f"{config.name}: {' and '.join(name.upper() for name in aligners)} against SFT",
        config=config,
        stages=tuple(entry.record for entry in found.values()),
        validation=_validation(validated, config) if validated else (),
        tokens={
            name: result.tokens
            for name, result in (
                ("sft", result_of(found, "sft", PolicyResult)),
                (of_round("reward", last), reward),
            )
            if result and result.tokens
        },
        histories={name: _histories(entry.points) for name, entry in found.items()},
        reward=reward,
        reward_quality=probes.quality if probes else None,
        probes=probes.probes if probes else (),
        sft=sft.evaluation,
        evaluations={name: result.evaluation for name, result in judged.items()},
        curves={name: result.curve for name, result in judged.items() if result.curve},
        responses=_responses({"sft": sft, **newest}),
        gate=result_of(found, "gate", GateDecision) or GateDecision(rules={}),
        promotion=result_of(found, "register", Promotion) or Promotion(verdict="refused"),
        run_id=run_id,
        command=repeat(config, run_id),
        finished_at=datetime.now(UTC),
        estimate=kept_estimate(config),
    )


def _histories(points: tuple[MetricPoint, ...]) -> dict[str, tuple[tuple[int, float], ...]]:
    histories: dict[str, list[tuple[int, float]]] = {}
    for point in points:
        values = histories.setdefault(point.key.partition("/")[2], [])
        # A stage's final number stands at its last step too, and may be another: held-out instead of training.
        if not values or values[-1][0] != point.step:
            values.append((point.step, point.value))
    return {name: tuple(values) for name, values in histories.items() if len(values) > 1}


def repeat(config: RunConfig, run_id: str) -> str:
    """Return the command that makes the same tree: a shipped recipe with overrides, or the stored tree itself."""
    if config.name in shipped_recipes():
        before = as_overrides(load_config(config.name))
        overrides = [
            f"{key}={_written(value)}"
            for key, value in as_overrides(config).items()
            if before.get(key) != value
        ]
        with suppress(ConfigError):
            if load_config(config.name, overrides) == config:
                return shlex.join(("rlhf", "run", config.name, *overrides))
    store = Settings().store
    if store.startswith("s3://"):
        fetch = f"mlflow artifacts download --run-id {run_id} --artifact-path config.json --dst-path ."
        return f"{fetch}\nrlhf run config.json"
    return shlex.join(("rlhf", "run", f"{store}/runs/{run_id}/config.json"))


def settings_apart(first: RunConfig, second: RunConfig) -> dict[str, tuple[JsonValue, JsonValue]]:
    """Return what two trees say differently, by its dotted name; None stands for what one of them does not have."""
    one, two = as_overrides(first), as_overrides(second)
    return {
        key: (one.get(key), two.get(key))
        for key in sorted({*one, *two})
        if one.get(key) != two.get(key) and key != "name"
    }


def _written(value: JsonValue) -> str:
    return value if isinstance(value, str) and yaml.safe_load(value) == value else json.dumps(value)


def _validation(validated: ValidatedData, config: RunConfig) -> tuple[ValidationReport, ...]:
    """Name generated files by what they hold: their folder is gone once they have been read."""
    if config.data.source != "helpdesk":
        return validated.reports
    return tuple(
        report.model_copy(
            update={
                "kind": GENERATED.get(Path(report.source).stem, report.kind),
                "source": f"the helpdesk world of seed {config.seed}",
            }
        )
        for report in validated.reports
    )


def _responses(results: dict[str, EvaluationResult]) -> "tuple[PairedResponses, ...]":
    """Return the SFT policy's first prompts with every policy's response to the same prompt."""
    from rlhf.report.content import PairedResponses, Turn

    store = artifact_store()
    tables = {name: pl.read_parquet(store.fetch(result.samples)) for name, result in results.items()}
    prompts = tables["sft"].head(SHOWN_SAMPLES).select("prompt_id", "prompt")
    wanted = prompts["prompt_id"].implode()
    said = {
        name: {
            row["prompt_id"]: row
            for row in table.filter(pl.col("prompt_id").is_in(wanted)).iter_rows(named=True)
        }
        for name, table in tables.items()
    }
    return tuple(
        PairedResponses(
            prompt=tuple(Turn(role=message["role"], text=message["content"]) for message in prompt),
            answers=tuple(_answer(name, rows[key]) for name, rows in said.items() if key in rows),
        )
        for key, prompt in prompts.iter_rows()
    )


def _answer(policy: str, row: dict[str, Any]) -> "Answer":
    from rlhf.report.content import Answer

    known = ("score", "gold", "right", "rude", "finished", "kl")
    pieces = tuple(zip(row.get("pieces") or (), row.get("piece_kl") or (), strict=True))
    # The samples of an old run may lack what the judge saw; judged again, by another world, it would be another.
    return Answer(
        policy=policy, text=row["response"], pieces=pieces, **{name: row.get(name) for name in known}
    )


def _columns(responses: "tuple[PairedResponses, ...]") -> dict[str, list[str | float | None]]:
    """Return the responses as a table: a row per prompt, and what each policy said, before and after."""
    columns: dict[str, list[str | float | None]] = {
        "prompt": ["\n".join(f"{turn.role}: {turn.text}" for turn in pair.prompt) for pair in responses]
    }
    for policy in {answer.policy: None for pair in responses for answer in pair.answers}:
        found = [next((a for a in pair.answers if a.policy == policy), None) for pair in responses]
        columns[policy] = [answer.text if answer else None for answer in found]
        columns[f"{policy}_score"] = [answer.score if answer else None for answer in found]
        columns[f"{policy}_gold"] = [answer.gold if answer else None for answer in found]
    return columns
