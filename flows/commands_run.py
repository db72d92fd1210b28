"""`rlhf run`, `stage`, `config`: the pipeline and the tree that decides what it does."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
import yaml

from flows import completion
from flows.environment import prepare
from flows.servers import temporary_prefect
from flows.signals import stop_in_order
from flows.terminal import say, show, show_json, show_table
from schemas.config import RunConfig
from schemas.config.loading import load_config
from schemas.config.run import STAGES, of_round
from schemas.errors import NotFound
from schemas.evaluation import PolicyEvaluation
from schemas.reports import RunSummary
from schemas.settings import Settings, without_login
from schemas.suggest import did_you_mean

Recipe = Annotated[
    str,
    typer.Argument(
        help="A file, several joined by commas, or a shipped name such as helpdesk.",
        autocompletion=completion.recipes,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[a.b=c ...]",
        help="section.key=value, such as ppo.kl_coef=0.1; `rlhf config RECIPE` shows all keys.",
        show_default=False,
        autocompletion=completion.overrides,
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Compute every stage again.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(run)
    app.command()(stage)
    app.command()(config)


def run(recipe: Recipe, overrides: Overrides = None, fresh: Fresh = False, json: Json = False) -> None:
    """Run the pipeline: from raw text to a registered model."""
    summary = _execute(load_config(recipe, overrides or []), fresh=fresh, until=None, quiet=json)
    code = exit_code(summary)
    if json:
        show_json(summary, status="refused" if code else "done")
    else:
        _show_stages(summary)
        _show_verdict(summary)
        _show_pages(summary)
    raise typer.Exit(code)


def stage(
    name: Annotated[
        str,
        typer.Argument(
            help="A stage, such as reward, or the name of an aligner.", autocompletion=completion.stages
        ),
    ],
    recipe: Recipe,
    overrides: Overrides = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Run one stage and what it needs."""
    tree = load_config(recipe, overrides or [])
    known = stage_names(tree)
    if name not in known:
        meant = did_you_mean(name, known)
        raise NotFound(
            f"No stage {name!r}; this recipe has: {', '.join(known)}" + (f"; {meant}" if meant else ".")
        )
    summary = _execute(tree, fresh=fresh, until=name, quiet=json)
    if json:
        show_json(summary, status="done")
    else:
        _show_stages(summary)
        for output, ref in next(entry.outputs for entry in summary.stages if entry.name == name).items():
            show(f"{output}: {ref.uri} {ref.digest}")


def config(recipe: Recipe, overrides: Overrides = None, json: Json = False) -> None:
    """Show the resolved configuration tree, or the first errors in it."""
    tree = load_config(recipe, overrides or [])
    if json:
        show_json(tree)
    else:
        show(yaml.safe_dump(tree.model_dump(mode="json"), sort_keys=False).rstrip())


def stage_names(tree: RunConfig) -> list[str]:
    """Return the names of the stages that a run of this tree has, in order."""
    aligners = [aligner.name for aligner in tree.aligners]
    first, last = STAGES.index("sample"), STAGES.index("gate")
    in_round = [
        name
        for stem in STAGES[first:last]
        for name in (
            [*aligners, *(f"evaluate-{policy}" for policy in ("sft", *aligners))]
            if stem == "evaluate"
            else [stem]
        )
    ]
    asked_for = {
        "select": tree.labelling.select == "disagreement",
        "reward-base": tree.reward.base is not None,
        "reference": bool(tree.reference_uses),
        "judge": tree.preferences.judging_fraction > 0,
    }
    rounds = range(1, tree.labelling.rounds + 1)
    every = [
        of_round(name, number)
        for number in rounds
        for name in in_round
        if asked_for.get(name, True) and (name, number) != ("select", 1)
    ]
    return [*STAGES[:first], *every, *STAGES[last:]]


def exit_code(summary: RunSummary) -> int:
    """Return 3 when the gate refused or rows were quarantined, else 0."""
    quarantined = sum(
        entry.metrics.get("quarantined", 0) for entry in summary.stages if entry.name == "validate"
    )
    return 3 if summary.promotion.verdict == "refused" or quarantined else 0


@contextmanager
def session(experiment: str) -> Iterator[None]:
    """Have a Prefect server and the experiment at hand for the flows that the block runs."""
    prepare(Settings(), debug="--debug" in sys.argv)
    stop_in_order()
    with temporary_prefect() as until_it_answers:
        from prefect.logging.handlers import APILogHandler
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        import flows.pipeline  # noqa: F401 - a second of imports, while the server starts
        from tasks.run import connect_early

        connect_early(experiment)
        until_it_answers()
        # The heartbeat's thread sleeps in whole seconds and is waited for; nobody listens to it in a terminal.
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            try:
                yield
            finally:
                APILogHandler().flush()  # as long as the server answers


def _execute(tree: RunConfig, *, fresh: bool, until: str | None, quiet: bool) -> RunSummary:
    with session(tree.name):
        from flows.pipeline import rlhf
        from flows.progress import Display
        from tasks.progress import listen

        with Display(quiet=quiet) as display, listen(display):
            return rlhf(tree, fresh=fresh, until=until)


def _show_stages(summary: RunSummary) -> None:
    rows = []
    for entry in summary.stages:
        refs = ", ".join(f"{name} {ref.digest[7:15]}" for name, ref in entry.outputs.items())
        rows.append((entry.name, entry.status, f"{entry.seconds:.1f} s", refs))
    show_table(("stage", "status", "time", "outputs"), rows)
    show("")


def _show_verdict(summary: RunSummary) -> None:
    show_table(
        ("policy", "win rate over sft", "kl", "score", "gold", "right", "rude", "tax", "harm"),
        [_evaluation_row(evaluation) for evaluation in summary.evaluation.values()],
    )
    show("")
    promotion = summary.promotion
    versions = ", ".join(f"{name} is version {version}" for name, version in promotion.versions.items())
    if promotion.verdict == "promoted":
        show(f"promoted: version {promotion.version} is now {promotion.alias} ({versions})")
    elif promotion.verdict == "waiting":
        show(
            f"waiting: version {promotion.version} passed the gate ({versions}); rlhf approve {promotion.version} --reason TEXT"
        )
    else:
        show(f"refused: no candidate passed the gate ({versions or 'none registered'}); see the report")


def _evaluation_row(evaluation: PolicyEvaluation) -> tuple[str, ...]:
    win = "-"
    if evaluation.win_rate is not None:
        win = f"{evaluation.win_rate:.3f} [{evaluation.win_rate_low:.3f}, {evaluation.win_rate_high:.3f}]"
    score = evaluation.score
    tax = evaluation.forgetting.alignment_tax if evaluation.forgetting else None
    harm = evaluation.safety.harm if evaluation.safety else None
    known = [evaluation.gold, evaluation.right, evaluation.rude, tax, harm]
    return (
        evaluation.name,
        win,
        f"{evaluation.kl:.2f}",
        "-" if score is None else f"{score.value:.2f}",
        *("-" if interval is None else f"{interval.value:.3f}" for interval in known),
    )


def _show_pages(summary: RunSummary) -> None:
    show(f"report: {summary.report}")
    show(f"run: {summary.run_id} (tracked at {without_login(Settings().tracking_uri)})")
    say("open the MLflow and Prefect pages with: rlhf ui; talk to the champion with: rlhf chat")
