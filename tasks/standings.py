"""Compare the aligners of finished runs on the prompts that they all answered, and what each of them took."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from schemas.config import AlignerConfig, BestOfNConfig, RunConfig
from schemas.config.run import STAGES, of_round
from schemas.errors import ConfigError, NotFound
from schemas.record import Interval
from schemas.reports import EvaluationResult, StageEntry, StageRecord
from schemas.standings import PairStanding, Spent, Standing, Standings
from schemas.sweep import SweepReport
from tasks.run import as_overrides, entries, result_of
from tasks.work import artifact_store, connect_tracking

if TYPE_CHECKING:
    from rlhf.evaluation.contrasts import Values

Measure = Literal["gold", "win_rate"]
MEASURES = ("gold", "win_rate", "kl", "length", "right", "rude")
SFT = "sft"


class Run:
    """One finished run: the last evaluation of each of its policies."""

    def __init__(self, run_id: str) -> None:
        stored = artifact_store().read(f"runs/{run_id}/config.json")
        if stored is None:
            raise NotFound(
                f"The store knows no run or sweep {run_id!r}; wanted an id that rlhf run or sweep printed."
            )
        self.run_id = run_id
        self.config = RunConfig.model_validate_json(stored)
        self.found: dict[str, StageEntry] = entries(run_id)
        self.round = self.config.labelling.rounds
        self.names = (SFT, *(aligner.name for aligner in self.config.aligners))
        self.results = {name: self._evaluation(name) for name in self.names}

    def _evaluation(self, name: str) -> EvaluationResult:
        result = result_of(self.found, of_round(f"evaluate-{name}", self.round), EvaluationResult)
        if result is None:
            raise NotFound(f"Run {self.run_id} has not evaluated {name} yet; let it end.")
        return result

    def values(self, measure: Measure) -> "Values":
        """Return what each policy reached on each prompt (M, N), in one order of prompts."""
        import numpy as np

        columns = [self._column(name, measure).sort("prompt_id") for name in self.names]
        if any(not column["prompt_id"].equals(columns[0]["prompt_id"]) for column in columns):
            raise NotFound(f"The policies of run {self.run_id} were not judged on the same prompts.")
        return np.stack([column["value"].to_numpy() for column in columns]).astype(np.float64)

    def _column(self, name: str, measure: Measure) -> pl.DataFrame:
        store, result = artifact_store(), self.results[name]
        samples = pl.read_parquet(store.fetch(result.samples))
        if measure == "gold":
            return samples.select("prompt_id", pl.col("gold").alias("value"))
        if result.verdicts is None:  # SFT against itself
            return samples.select("prompt_id", pl.lit(0.5).alias("value"))
        return pl.read_parquet(store.fetch(result.verdicts)).select(
            "prompt_id", pl.col("outcome").alias("value")
        )

    def measures(self, name: str) -> dict[str, float]:
        """Return a policy's headline numbers, where they are known."""
        metrics = self.results[name].metrics
        return {measure: metrics[measure] for measure in MEASURES if measure in metrics}

    def record(self, stage: str) -> StageRecord | None:
        """Return the record of a stage of the last round, or of the only time that it ran."""
        entry = self.found.get(of_round(stage, self.round)) or self.found.get(stage)
        return entry.record if entry else None


def compare_methods(ids: Sequence[str], *, measure: Measure | None, confidence: float) -> Standings:
    """Rank the aligners of one run by its prompts, or of several runs by their seeds; a sweep stands for its runs."""
    import numpy as np

    from rlhf.evaluation.contrasts import contrasts, letters, mean_intervals

    runs = [Run(run_id) for run_id in _runs_of(ids)]
    _require_alike(runs)
    gold = all("gold" in run.results[name].metrics for run in runs for name in run.names)
    if measure == "gold" and not gold:
        raise ConfigError(
            "gold is not known to these runs: only the helpdesk world knows it; use --by win_rate."
        )
    chosen: Measure = measure or ("gold" if gold else "win_rate")
    tables = [run.values(chosen) for run in runs]
    values = tables[0] if len(runs) == 1 else np.stack([table.mean(axis=1) for table in tables], axis=1)
    order = np.argsort(-values.mean(axis=1), kind="stable")  # best first, here and in every pair
    names, values = tuple(runs[0].names[row] for row in order), values[order]
    found = contrasts(values, confidence=confidence)
    return Standings(
        recipe=runs[0].config.name,
        runs=tuple(run.run_id for run in runs),
        seeds=tuple(run.config.seed for run in runs),
        measure=chosen,
        unit="prompt" if len(runs) == 1 else "seed",
        units=values.shape[1],
        confidence=confidence,
        policies=_standings(runs, names, letters(found), mean_intervals(values, confidence=confidence)),
        pairs=tuple(
            PairStanding(
                first=names[one.first],
                second=names[one.second],
                difference=one.difference,
                p_value=one.p_value,
                apart=one.apart,
            )
            for one in found
        ),
        shared={
            stage: spent for stage in STAGES[: STAGES.index("evaluate")] if (spent := _spent(runs, stage))
        },
    )


def keep_standings(report: Standings, ids: Sequence[str], folder: Path) -> tuple[Path, Path]:
    """Write the report and its picture into a folder and into the MLflow run of each id; return where they are."""
    from rlhf.report.standings import picture

    folder.mkdir(parents=True, exist_ok=True)
    drawn, numbers = (folder / f"compare-{ids[0]}{suffix}" for suffix in (".svg", ".json"))
    drawn.write_text(picture(report), encoding="utf-8")
    numbers.write_text(report.model_dump_json(indent=2), encoding="utf-8")
    for one in ids:
        tracked = connect_tracking(report.recipe).run(one)
        for path in (drawn, numbers):
            tracked.log_file(path, "compare")
    return drawn, numbers


def _runs_of(ids: Sequence[str]) -> list[str]:
    """Return the runs that the ids name; a sweep names those of its runs that ended well."""
    found: list[str] = []
    for one in ids:
        stored = artifact_store().read(f"sweeps/{one}.json")
        rows = SweepReport.model_validate_json(stored).rows if stored else ()
        found += [row.run_id for row in rows if row.run_id] if stored else [one]
    if not found or len(set(found)) < len(found):
        raise ConfigError(
            f"{' '.join(ids)} names {'a run twice' if found else 'no finished run'}; name each once."
        )
    return found


def _require_alike(runs: Sequence[Run]) -> None:
    first = as_overrides(runs[0].config)
    for run in runs[1:]:
        other = as_overrides(run.config)
        keys = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
        if differing := [key for key in keys if key != "seed"]:
            raise ConfigError(
                f"Runs {runs[0].run_id} and {run.run_id} differ in {', '.join(differing[:3])}, not only in the seed; "
                "name the runs of one setting."
            )
    if len({run.config.seed for run in runs}) < len(runs):
        raise ConfigError(
            "Two of these runs have the same seed, so they are one and the same; name each seed once."
        )


def _standings(
    runs: Sequence[Run], names: Sequence[str], groups: Sequence[str], intervals: Sequence[Interval]
) -> tuple[Standing, ...]:
    aligners: dict[str, AlignerConfig] = {aligner.name: aligner for aligner in runs[0].config.aligners}
    found = []
    for rank, (name, group, value) in enumerate(zip(names, groups, intervals, strict=True), start=1):
        known = [run.measures(name) for run in runs]
        measures = {key: sum(one[key] for one in known) / len(known) for key in known[0]}
        aligner = aligners.get(name)
        draws = aligner.n if isinstance(aligner, BestOfNConfig) else 1
        found.append(
            Standing(
                name=name,
                method=aligner.method if aligner else SFT,
                rank=rank,
                letters=group,
                value=value,
                measures=measures,
                spent=(_spent(runs, name) if aligner else None) or Spent(),
                tokens_per_answer=draws * measures["length"],
            )
        )
    return tuple(found)


def _spent(runs: Sequence[Run], stage: str) -> Spent | None:
    """Return what a stage took on average, wherever it was computed; None where no run has it."""
    records = [record for run in runs if (record := run.record(stage))]
    if not records:
        return None
    return Spent(
        seconds=sum(record.saved or record.seconds for record in records) / len(records),
        sampled_tokens=sum(record.sampled_tokens for record in records) / len(records),
        gradient_tokens=sum(record.gradient_tokens for record in records) / len(records),
    )
