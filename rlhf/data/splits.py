"""Name prompts, and split tables by them: a prompt is on one side only."""

import hashlib
from collections.abc import Sequence

import orjson
import polars as pl

from rlhf.data.conversation import Message


def prompt_id(messages: Sequence[Message]) -> str:
    """Return the first 16 hexadecimal digits of the sha256 over the JSON of a prompt's messages."""
    return hashlib.sha256(orjson.dumps(messages)).hexdigest()[:16]


def split_by_prompt(frame: pl.DataFrame, fraction: float, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a table into (train, held out) with about `fraction` of the prompts held out, at least one each.

    Prompts are drawn by the hash of seed and prompt id, so the side of a prompt does not depend on the other rows.
    """
    ids = frame["prompt_id"].unique().sort().to_list()
    order = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    size = min(max(1, round(fraction * len(ids))), len(ids) - 1) if len(ids) > 1 else 0
    away = frame["prompt_id"].is_in(pl.Series(order[:size], dtype=pl.String).implode())
    return frame.filter(~away), frame.filter(away)
