"""Name prompts, and split tables by them: a prompt, and all that are nearly the same, is on one side only."""

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

    Prompts whose first questions are nearly the same stay together. Clusters are drawn by the hash of seed and prompt
    id, so the side of a prompt hardly depends on the other rows.
    """
    clusters = _clusters(frame)
    order = sorted(clusters, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    wanted = max(1, round(fraction * sum(map(len, clusters.values()))))
    away: list[str] = []
    for name in order[:-1]:  # one cluster stays for training
        if len(away) >= wanted:
            break
        away += clusters[name]
    held_out = frame["prompt_id"].is_in(pl.Series(away, dtype=pl.String).implode())
    return frame.filter(~held_out), frame.filter(held_out)


def _clusters(frame: pl.DataFrame) -> dict[str, list[str]]:
    """Return the prompt ids of each cluster by the smallest of them."""
    prompts = frame.unique("prompt_id", keep="first").sort("prompt_id")
    if "prompt" not in frame.columns:
        return {name: [name] for name in prompts["prompt_id"]}
    from rlhf.data.near import clusters
    from rlhf.data.questions import first_questions

    ids = prompts["prompt_id"].to_list()
    found: dict[str, list[str]] = {}
    for name, place in zip(ids, clusters(first_questions(prompts)), strict=True):
        found.setdefault(ids[place], []).append(name)
    return found
