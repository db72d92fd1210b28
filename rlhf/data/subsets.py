"""The parts that a benchmark of pairs names: a column `subset` beside `prompt`, `chosen` and `rejected`."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from rlhf.data.readers import open_source
from rlhf.data.records import Limits


def with_subsets(preferences: pl.DataFrame, files: Sequence[Path]) -> pl.DataFrame:
    """Add the column `subset` to pairs that were read from these files; unchanged where the files have none.

    A row is recognised by its two responses, because reading may leave rows out.
    """
    named: dict[tuple[str, str], str] = {}
    for file in files:
        for raw in open_source(file, Limits()).records:
            record: Any = raw.value
            if record is None and raw.defect is None:
                with suppress(ValueError):
                    record = json.loads(raw.data)
            if isinstance(record, dict) and isinstance(record.get("subset"), str):
                named[_text(record.get("chosen")), _text(record.get("rejected"))] = record["subset"]
    if not named:
        return preferences
    found = [
        named.get((_text(chosen), _text(rejected)))
        for chosen, rejected in preferences.select("chosen", "rejected").iter_rows()
    ]
    return preferences.with_columns(subset=pl.Series(found, dtype=pl.String))


def _text(value: object) -> str:
    """Return a response without the space around it; of a conversation, its last turn."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    return value.strip() if isinstance(value, str) else ""
