"""The record of a sweep: one MLflow run above its pipeline runs, and the table of them."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf.adapters.presence import present
from rlhf.adapters.tracking import TrackedRun
from schemas.config import RunConfig
from schemas.config.knobs import Setting, label
from schemas.errors import ConfigError
from schemas.reports import RunSummary
from schemas.settings import Settings
from schemas.sweep import SweepReport, SweepRow, SweptRun
from tasks.run import headline
from tasks.work import artifact_store, code_tags, connect_tracking


class SweepBook:
    """What is known of a sweep so far; every row is written down as it comes, so that an interruption loses none."""

    def __init__(self, tracked: TrackedRun, report: SweepReport, folder: Path) -> None:
        self.report = report
        self._tracked = tracked
        self._folder = folder

    @property
    def table(self) -> Path:
        """The table as CSV, one row per run."""
        return self._folder / f"sweep-{self.report.sweep_id}.csv"

    def place(self, setting: Setting, seed: int) -> SweptRun:
        """Return where the run of a setting belongs."""
        return SweptRun(sweep=self.report.sweep_id, label=label(setting, seed))

    def add(self, setting: Setting, seed: int, outcome: RunSummary | Exception) -> SweepRow:
        """Write down how a run ended.

        Raises ConfigError when it ended well and has not measured the objective: no other one will have.
        """
        if isinstance(outcome, Exception):
            error = " ".join(str(outcome).split()) or type(outcome).__name__
            row = SweepRow(setting=setting, seed=seed, status="failed", error=error)
        else:
            row = SweepRow(
                setting=setting,
                seed=seed,
                status="done",
                run_id=outcome.run_id,
                computed=tuple(entry.name for entry in outcome.stages if entry.status == "ran"),
                seconds=sum(entry.seconds for entry in outcome.stages),
                metrics={point.key: point.value for point in headline(outcome.run_id)},
            )
        self.report = self.report.model_copy(update={"rows": (*self.report.rows, row)})
        self._write(row)
        if row.status == "done" and self.report.objective not in row.metrics:
            raise ConfigError(
                f"No run measures {self.report.objective!r}; choose --objective among {', '.join(sorted(row.metrics))}. "
                "What was computed is kept."
            )
        return row

    def _write(self, row: SweepRow) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.table.write_text(as_csv(self.report), encoding="utf-8")
        numbers = self.table.with_suffix(".json")
        artifact_store().write(f"sweeps/{self.report.sweep_id}.json", self.report.model_dump_json().encode())
        numbers.write_text(self.report.model_dump_json(indent=2), encoding="utf-8")
        for path in (self.table, numbers):
            self._tracked.log_file(path, "sweep")
        if self.report.objective in row.metrics:
            value = row.metrics[self.report.objective]
            self._tracked.log_metrics({self.report.objective: value}, len(self.report.rows))


@contextmanager
def sweep_run(tree: RunConfig, report: SweepReport) -> Iterator[SweepBook]:
    """Open the sweep's run, whose children the pipeline runs become; `report` has no rows and no id yet."""
    tracking = connect_tracking(tree.name)
    # Known as a process, so that whoever comes after a killed sweep ends its run, too.
    with present(artifact_store(), tracking=tracking.identity, flow_run_id=None) as process:
        tracked = tracking.start_run(
            f"sweep of {report.recipe}",
            parent=None,
            tags={
                "sweep": "parent",
                "objective": report.objective,
                "process": process.token,
                **code_tags(),
            },
        )
        tracked.log_params(
            {knob.key: ",".join(map(str, knob.values)) or f"{knob.low}..{knob.high}" for knob in report.knobs}
        )
        with tracked:
            yield SweepBook(
                tracked, report.model_copy(update={"sweep_id": tracked.run_id}), Settings().reports
            )


def as_csv(report: SweepReport) -> str:
    """Return one line per run: knobs and headline numbers as columns, ready for a parallel-coordinates plot."""
    knobs = [knob.key for knob in report.knobs]
    measures = sorted({name for row in report.rows for name in row.metrics})
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([*knobs, "seed", "status", "run_id", "seconds", *measures, "error"])
    for row in report.rows:
        lines.writerow(
            [
                *(row.setting[knob] for knob in knobs),
                row.seed, row.status, row.run_id, row.seconds,
                *(row.metrics.get(name) for name in measures),
                row.error,
            ]
        )  # fmt: skip
    return text.getvalue()
