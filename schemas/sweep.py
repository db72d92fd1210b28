"""Frozen records of a sweep: one row per pipeline run, and what each setting is worth over its seeds."""

from typing import Literal

from pydantic import Field, JsonValue

from schemas.config.knobs import Knob
from schemas.record import Record


class SweptRun(Record):
    """Where a pipeline run belongs that a sweep started."""

    sweep: str
    """The sweep's run in MLflow."""
    label: str
    """What the run is called there: its setting and seed."""


class SweepRow(Record):
    """One pipeline run of a sweep."""

    setting: dict[str, JsonValue]
    """Value of each knob, by its dotted key."""
    seed: int
    status: Literal["done", "failed"]
    run_id: str | None = None
    """The pipeline run; None when it failed, and MLflow lists it below the sweep by its label."""
    error: str | None = None
    """Why it failed."""
    computed: tuple[str, ...] = ()
    """Stages that were computed for it; all others were re-used."""
    seconds: float = 0.0
    metrics: dict[str, float] = Field(default_factory=dict)
    """Headline numbers, `<aligner>/<measure>` and `reward/held_out_accuracy`."""


class SettingSummary(Record):
    """The objective of one setting over its seeds."""

    setting: dict[str, JsonValue]
    seeds: int
    """Runs that ended with the objective."""
    mean: float | None = None
    standard_error: float | None = None
    """Of the mean, from the spread between seeds; None with fewer than two."""


class SweepReport(Record):
    """What `rlhf sweep --json` prints."""

    sweep_id: str
    """The sweep's run in MLflow."""
    recipe: str
    knobs: tuple[Knob, ...]
    objective: str
    """What a setting is judged by, `<aligner>/<measure>`; more is better."""
    rows: tuple[SweepRow, ...] = ()

    @property
    def settings(self) -> tuple[SettingSummary, ...]:
        """Each setting once, in the order in which it was first run."""
        found: dict[str, tuple[dict[str, JsonValue], list[float]]] = {}
        for row in self.rows:
            _, values = found.setdefault(repr(sorted(row.setting.items())), (row.setting, []))
            if self.objective in row.metrics:
                values.append(row.metrics[self.objective])
        return tuple(_summary(setting, values) for setting, values in found.values())

    @property
    def best(self) -> SettingSummary | None:
        """The setting with the highest mean, of those that were run with the most seeds; None if all failed."""
        known = [one for one in self.settings if one.mean is not None]
        most = max((one.seeds for one in known), default=0)
        return max((one for one in known if one.seeds == most), key=lambda one: one.mean or 0.0, default=None)


def _summary(setting: dict[str, JsonValue], values: list[float]) -> SettingSummary:
    if not values:
        return SettingSummary(setting=setting, seeds=0)
    count, mean = len(values), sum(values) / len(values)
    error = (sum((value - mean) ** 2 for value in values) / (count - 1) / count) ** 0.5 if count > 1 else None
    return SettingSummary(setting=setting, seeds=count, mean=mean, standard_error=error)
