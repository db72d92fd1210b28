"""`rlhf models`, `promote`, `rollback`, `lineage`: the registry by hand."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands_run import Json
from flows.environment import prepare
from flows.terminal import show, show_json, show_table
from schemas.settings import Settings

if TYPE_CHECKING:
    from rlhf.adapters.tracking import Tracking

Name = Annotated[str, typer.Option("--name", help="The registered model: the recipe's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (models, promote, rollback, lineage):
        app.command()(command)


def models(name: Name = "helpdesk", json: Json = False) -> None:
    """List the registered versions with their aliases and what they have shown."""
    versions = registry(name).versions(name)
    if json:
        show_json([version.model_dump(mode="json") for version in versions])
        return
    rows = [
        (
            str(version.version),
            ", ".join(version.aliases),
            *(version.tags.get(tag, "-") for tag in ("aligner", "win_rate", "kl", "gate", "pipeline_run")),
        )
        for version in versions
    ]
    show_table(("version", "alias", "aligner", "win rate", "kl", "gate", "pipeline run"), rows)


def promote(
    version: Annotated[int, typer.Argument(min=1)],
    name: Name = "helpdesk",
    expected: Annotated[
        int | None, typer.Option(help="Refuse when another version than this is champion by now.")
    ] = None,
) -> None:
    """Make a version the champion; the one before it becomes `previous`."""
    registry(name).promote(name, version, expected=expected)
    show(f"{name}: version {version} is now champion")


def rollback(name: Name = "helpdesk") -> None:
    """Make the previous champion the champion again."""
    move = registry(name).rollback(name)
    show(f"{name}: version {move.version} is champion again")


def lineage(version: str, name: Name = "helpdesk", json: Json = False) -> None:
    """Show where a version (a number or an alias) came from."""
    found = registry(name).resolve(name, version)
    if json:
        show_json(found)
        return
    show(f"{name} version {found.version}")
    for key, value in sorted(found.tags.items()):
        show(f"  {key}: {value}")


def registry(name: str) -> "Tracking":
    """Return the connection to the registry that the environment names."""
    settings = Settings()
    prepare(settings)
    from rlhf.adapters.tracking import connect

    return connect(settings, name)
