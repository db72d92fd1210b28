"""`rlhf compare`: which of a run's aligners is better, as far as the data can tell, and what each of them took."""

from enum import StrEnum
from typing import Annotated

import typer

from flows.commands_run import Json
from flows.environment import prepare
from flows.terminal import show, show_json, show_table
from schemas.settings import Settings
from schemas.standings import Spent, Standing, Standings

_SHARES = ("win_rate", "right", "rude")


class _By(StrEnum):
    gold = "gold"
    win_rate = "win_rate"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(compare)


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Runs that differ in the seed only, or a sweep, by their ids.")
    ],
    by: Annotated[
        _By | None,
        typer.Option(help="What is compared; default: gold where it is known.", show_default=False),
    ] = None,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="That no two equal aligners are called different.")
    ] = 0.95,
    json: Json = False,
) -> None:
    """Rank the aligners of one run by its prompts, or of several by their seeds, and say what cannot be told apart."""
    settings = Settings()
    prepare(settings)
    from tasks.standings import compare_methods, keep_standings

    report = compare_methods(runs, measure=by.value if by else None, confidence=confidence)
    drawn, numbers = keep_standings(report, runs, settings.reports)
    if json:
        show_json(report, sentences=list(report.sentences), picture=str(drawn))
        return
    _show_policies(report)
    _show_costs(report)
    for sentence in report.sentences:
        show(sentence)
    show(f"picture: {drawn}")
    show(f"numbers: {numbers}")


def _show_policies(report: Standings) -> None:
    measures = [
        name for name in ("gold", "win_rate", "kl", "length", "right", "rude") if _known(report, name)
    ]
    show_table(
        ("rank", "policy", "group", f"{report.measure} [{report.confidence:.0%}]", *measures),
        [
            (
                str(one.rank),
                one.name,
                one.letters,
                f"{one.value.value:.3f} [{one.value.low:.3f}, {one.value.high:.3f}]",
                *(_number(one, name) for name in measures),
            )
            for one in report.policies
        ],
    )
    show("")


def _show_costs(report: Standings) -> None:
    show_table(
        ("stage", "sampled tokens", "gradient tokens", "seconds", "tokens per answer"),
        [
            *((one.name, *_spent(one.spent), f"{one.tokens_per_answer:,.0f}") for one in report.policies),
            *((f"({stage})", *_spent(spent), "") for stage, spent in report.shared.items()),
        ],
    )
    show("")


def _known(report: Standings, name: str) -> bool:
    return any(name in one.measures for one in report.policies)


def _number(one: Standing, name: str) -> str:
    if name not in one.measures:
        return "-"
    return f"{one.measures[name]:.1%}" if name in _SHARES else f"{one.measures[name]:.2f}"


def _spent(spent: Spent) -> tuple[str, ...]:
    return (f"{spent.sampled_tokens:,.0f}", f"{spent.gradient_tokens:,.0f}", f"{spent.seconds:,.1f}")
