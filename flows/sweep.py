"""A sweep: the pipeline once per setting and seed, up to the evaluations, every run below one MLflow run."""

from collections.abc import Callable, Sequence

from flows.pipeline import rlhf
from flows.progress import Display
from flows.terminal import say
from schemas.config import RunConfig
from schemas.config.knobs import Setting
from schemas.config.run import of_round
from schemas.errors import ConfigError
from schemas.reports import RunSummary
from schemas.sweep import SweepReport, SweepRow
from tasks.progress import listen
from tasks.search import Search
from tasks.sweep import SweepBook, sweep_run

Tree = Callable[[Setting, int], RunConfig]


def sweep(
    report: SweepReport,
    base: RunConfig,
    tree: Tree,
    seeds: Sequence[int],
    search: Search,
    *,
    quiet: bool,
) -> tuple[SweepReport, str]:
    """Run what the search asks for; return the rows, and where the table is.

    Runs stop before the gate: whoever chooses the best of many must let the chosen one face it, once.
    """
    with sweep_run(base, report) as book:
        try:
            setting = next(search)
            while True:
                answer = _worth(book, [_run(book, tree, setting, seed, quiet) for seed in seeds])
                setting = search.send(answer)
        except StopIteration:
            return book.report, str(book.table)


def last_evaluation(tree: RunConfig) -> str:
    """Return the name of the stage after which nothing is left but to choose."""
    return of_round(f"evaluate-{tree.aligners[-1].name}", tree.labelling.rounds)


def _run(book: SweepBook, tree: Tree, setting: Setting, seed: int, quiet: bool) -> SweepRow:
    place = book.place(setting, seed)
    say(place.label)
    try:
        config = tree(setting, seed)
    except ConfigError as error:  # a search combines what only together is wrong
        row = book.add(setting, seed, error)
    else:
        # As a state, a failure is an answer like any other: the remaining runs go on.
        with Display(quiet=quiet) as display, listen(display):
            state = rlhf(config, until=last_evaluation(config), swept=place, return_state=True)
        outcome = state.result(raise_on_failure=False)
        assert isinstance(outcome, RunSummary | Exception)
        row = book.add(setting, seed, outcome)
    if row.error:
        say(f"{place.label}: failed: {row.error}")
    return row


def _worth(book: SweepBook, rows: Sequence[SweepRow]) -> float | None:
    """Return the mean objective over the seeds; None when one failed: the others would be no fair comparison."""
    values = [row.metrics.get(book.report.objective) for row in rows]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
