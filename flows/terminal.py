"""Standard output carries the result, standard error the progress and the messages."""

import json
import sys
from collections.abc import Mapping, Sequence

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

_FILE_WIDTH = 1_000
"""Columns that a file is taken to have."""


def say(message: str) -> None:
    """Write one message to standard error."""
    print(message, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Write a part of the result to standard output."""
    print(text, flush=True)


def show_json(result: BaseModel | Mapping[str, object] | Sequence[object], **extra: object) -> None:
    """Write the one JSON value that `--json` promises to standard output."""
    value = {**result.model_dump(mode="json"), **extra} if isinstance(result, BaseModel) else result
    show(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to standard output; nothing is wrapped or cut when the output is a file."""
    console = Console() if sys.stdout.isatty() else Console(width=_FILE_WIDTH)
    table = Table(*headings, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
