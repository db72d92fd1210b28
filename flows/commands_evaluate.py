"""`rlhf evaluate` and `rlhf frontier`: what a model is worth against another, and where optimising it went too far."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands_model import MODEL_HELP, model_folder
from flows.commands_registry import Name
from flows.commands_run import Json, Overrides, Recipe
from flows.environment import prepare
from flows.terminal import show, show_json, show_table
from schemas.config.loading import load_config
from schemas.frontier import FrontierFit, FrontierReport
from schemas.record import Interval, Record
from schemas.refs import ModelRef
from schemas.settings import Settings

if TYPE_CHECKING:
    from typing import Literal

Model = Annotated[str, typer.Argument(help=MODEL_HELP)]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(evaluate)
    app.command()(frontier)


def evaluate(
    model: Model,
    recipe: Recipe,
    overrides: Overrides = None,
    against: Annotated[str, typer.Option(help="The model to compare with, named like MODEL.")] = "champion",
    reward: Annotated[
        str | None, typer.Option(help="A reward model, such as RUN/reward: its scores are shown.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="The reward model of evaluate.judge=evaluation_reward, such as RUN/judge."),
    ] = None,
    name: Name = "helpdesk",
    json: Json = False,
) -> None:
    """Compare two models on the held-out prompts of a recipe: win rate, KL, forgetting, safety."""
    tree = load_config(recipe, overrides or [])
    prepare(Settings())
    models = {
        role: stored_model(given, name, "policy" if role in ("model", "against") else "reward")
        for role, given in (("model", model), ("against", against), ("reward", reward), ("judge", judge))
        if given is not None
    }
    from flows.comparison import compare

    found = compare(tree, models)
    if json:
        show_json(found.evaluation, against=against, samples=found.samples.model_dump(mode="json"))
        return
    show_table(("measure", model), [*_rows(found.evaluation)])


def frontier(
    run: Annotated[str, typer.Argument(help="The run's id, as `rlhf run` printed it.")],
    prompts: Annotated[int, typer.Option(min=2, help="Held-out prompts for best-of-n.")] = 128,
    samples: Annotated[int, typer.Option(min=2, max=512, help="Responses per prompt for best-of-n.")] = 64,
    json: Json = False,
) -> None:
    """Show where a run's optimisation goes too far: proxy and gold against KL, for its policies and best-of-n."""
    settings = Settings()
    prepare(settings)
    from tasks.frontier import keep_frontier, measure_frontier

    report = measure_frontier(run, num_prompts=prompts, num_samples=samples)
    drawn, numbers = keep_frontier(report, settings.reports)
    if json:
        show_json(report, picture=str(drawn))
        return
    show_table(
        ("method", "value", "start", "alpha", "beta", "residual", "peak at KL"),
        [
            (method.method, label, *_fit(fit))
            for method in report.methods
            for label, fit in (("proxy", method.score_fit), ("gold", method.gold_fit))
        ],
    )
    for sentence in _budgets(report):
        show(sentence)
    show(f"picture: {drawn}")
    show(f"numbers: {numbers}")


def stored_model(model: str, name: str, role: "Literal['policy', 'reward']") -> ModelRef:
    """Put the model that MODEL names into the store, where stages read; the same bytes are there once."""
    from tasks.work import artifact_store

    uri, digest = artifact_store().publish(model_folder(model, name))
    return ModelRef(uri=uri, digest=digest, role=role)


def _rows(found: Record, prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for field in type(found).model_fields:
        value, label = getattr(found, field), f"{prefix}{field}".replace("_", " ")
        if isinstance(value, Interval):
            rows.append((label, _interval(value)))
        elif isinstance(value, Record):
            rows += _rows(value)
        elif isinstance(value, float):
            rows.append((label, f"{value:.4f}"))
        elif isinstance(value, int):
            rows.append((label, str(value)))
    return rows


def _fit(fit: FrontierFit) -> tuple[str, ...]:
    peak = "none" if fit.peak_kl is None else _interval(fit.peak_kl)
    return (*(_interval(found) for found in (fit.start, fit.alpha, fit.beta)), f"{fit.residual:.3f}", peak)


def _interval(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _budgets(report: FrontierReport) -> list[str]:
    """Say for each method how far optimising is worth it."""
    return [
        f"{method.method}: gold ({report.gold}) peaks at {method.budget_kl:.2f} nats; recommended KL budget: {method.budget_kl:.2f}"
        if method.turned
        else f"{method.method}: gold ({report.gold}) does not turn within the {method.budget_kl:.2f} nats that were measured; "
        "that is all that can be recommended"
        for method in report.methods
    ]
