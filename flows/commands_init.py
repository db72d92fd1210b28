"""`rlhf init`: a starter project for one's own data."""

import re
from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import show
from schemas.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.", file_okay=False)],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the recipe and of the registered model; default: the folder's."),
    ] = None,
) -> None:
    """Write a starter project: a recipe that runs, example data in the formats that are read, and a README."""
    called = name or folder.absolute().name
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", called):
        raise ConfigError(
            f"{called!r} cannot name a recipe; wanted a small letter, then small letters, digits, - or _. Give one with --name."
        )
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} is not empty; name a new folder, so that nothing of yours is overwritten."
        )
    from rlhf.data.starter import write_starter

    for path in write_starter(folder, called):
        show(str(path))
    show(f"next: cd {folder} && rlhf run recipe.yaml; then put your files into data/ (README.md says how)")
