"""`rlhf sweep`: the pipeline over a grid of settings and several seeds, or where a search wants to look."""

from enum import StrEnum
from typing import Annotated

import typer

from flows.commands_run import Json, Recipe, session
from flows.terminal import show, show_json, show_table
from schemas.config import RunConfig
from schemas.config.knobs import Knob, Setting, read_knobs, settled
from schemas.config.loading import load_config
from schemas.errors import ConfigError
from schemas.sweep import SettingSummary, SweepReport
from tasks.search import Search, grid, optuna

MEASURES = ("win_rate", "gold", "kl", "length")
"""Shown in the terminal; the table has all."""


class _Search(StrEnum):
    grid = "grid"
    optuna = "optuna"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(sweep)


def sweep(
    recipe: Recipe,
    knobs: Annotated[
        list[str] | None,
        typer.Argument(
            help="section.key=value,value,... such as ppo.kl_coef=0.02,0.05,0.1", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs per setting: the recipe's seed and the next ones.")
    ] = 1,
    fixed: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value, the same in all runs.", show_default=False),
    ] = None,
    search: Annotated[
        _Search, typer.Option(help="All combinations, or what Optuna proposes; it takes low..high, too.")
    ] = _Search.grid,
    trials: Annotated[int, typer.Option(min=1, help="Settings that a search tries.")] = 20,
    objective: Annotated[
        str | None,
        typer.Option(help="ALIGNER/MEASURE, more is better; default: the win rate.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Run a grid of settings through the same cached stages, and compare them in one table."""
    overrides = fixed or []
    base = load_config(recipe, overrides)
    varied = read_knobs(knobs or [], ranges=search is _Search.optuna)
    if not varied and (seeds == 1 or search is not _Search.grid):
        raise ConfigError("Nothing is varied; name a knob such as ppo.kl_coef=0.02,0.05,0.1, or --seeds 4.")
    for setting in grid(varied) if search is _Search.grid else _ends(varied):
        settled(recipe, overrides, setting, base.seed)
    wanted = SweepReport(
        sweep_id="", recipe=recipe, knobs=varied, objective=_objective(base, varied, objective)
    )
    settings: Search = (
        grid(varied) if search is _Search.grid else optuna(varied, trials=trials, seed=base.seed)
    )
    with session(base.name):
        from flows.sweep import sweep as run_all

        report, table = run_all(
            wanted,
            base,
            lambda setting, seed: settled(recipe, overrides, setting, seed),
            range(base.seed, base.seed + seeds),
            settings,
            quiet=json,
        )
    failed = any(row.status == "failed" for row in report.rows)
    if json:
        show_json(
            report,
            settings=[one.model_dump(mode="json") for one in report.settings],
            best=report.best.model_dump(mode="json") if report.best else None,
            table=table,
            status="failed" if failed else "done",
        )
    else:
        _show(report, base)
        show(f"table: {table} (MLflow run {report.sweep_id})")
    raise typer.Exit(1 if failed else 0)


def _ends(knobs: tuple[Knob, ...]) -> list[Setting]:
    """Return settings that have every alternative and both ends of every range among them."""
    first: Setting = {knob.key: knob.ends[0] for knob in knobs}
    return [{**first, knob.key: value} for knob in knobs for value in knob.ends]


def _objective(tree: RunConfig, knobs: tuple[Knob, ...], given: str | None) -> str:
    """Return what settings are judged by: by default the win rate of the aligner that is varied, or of the first."""
    names = [aligner.name for aligner in tree.aligners]
    if given is None:
        varied = [name for knob in knobs if (name := knob.key.partition(".")[0]) in names]
        return f"{(varied or names)[0]}/win_rate"
    if given.partition("/")[0] not in names or not given.partition("/")[2]:
        raise ConfigError(
            f"--objective {given} names no aligner of this recipe; wanted ALIGNER/MEASURE, such as {names[0]}/win_rate "
            f"(aligners: {', '.join(names)})."
        )
    return given


def _show(report: SweepReport, tree: RunConfig) -> None:
    knobs = [knob.key for knob in report.knobs]
    varied = {knob.partition(".")[0] for knob in knobs}
    names = [aligner.name for aligner in tree.aligners]
    columns = [
        f"{name}/{measure}"
        for name in [name for name in names if name in varied] or names
        for measure in MEASURES
        if any(f"{name}/{measure}" in row.metrics for row in report.rows)
    ]
    show_table(
        (*knobs, "seed", "status", *columns),
        [
            (
                *(str(row.setting[knob]) for knob in knobs),
                str(row.seed),
                f"failed: {row.error}" if row.error else row.status,
                *(f"{row.metrics[name]:.3f}" if name in row.metrics else "-" for name in columns),
            )
            for row in report.rows
        ],
    )
    show("")
    if len({row.seed for row in report.rows}) > 1:
        show_table(
            (*knobs, "seeds", f"mean {report.objective}"),
            [
                (*(str(one.setting[knob]) for knob in knobs), str(one.seeds), _mean(one))
                for one in report.settings
            ],
        )
        show("")
    if not report.knobs and len(tree.aligners) > 1:
        show(f"which aligner is best, as far as these seeds can tell: rlhf compare {report.sweep_id}")
    if report.best and report.best.setting:
        best = " ".join(f"{key}={value}" for key, value in report.best.setting.items())
        show(
            f"highest {report.objective}: {best}; it was chosen among {len(report.settings)}, so its own number flatters it"
        )
        show(f"nothing was registered; let it face the gate: rlhf run {report.recipe} {best}")


def _mean(found: SettingSummary) -> str:
    if found.mean is None:
        return "-"
    error = "" if found.standard_error is None else f" (standard error {found.standard_error:.3f})"
    return f"{found.mean:.3f}{error}"
