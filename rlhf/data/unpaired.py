"""Single responses that are good or bad, as KTO takes them: from pairs, or from what people said of single responses."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from rlhf.data.chat import encode_prompt, encode_response
from schemas.errors import DataRejected

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One response as token ids, ended by EOS unless it was cut, by the sampler or here."""

    prompt_id: str
    prompt: list[int]
    response: list[int]
    good: bool
    weight: float
    """How far its comparisons agree, up to 1."""


def from_preferences(preferences: pl.DataFrame) -> pl.DataFrame:
    """Return each response of the pairs once: good if it was preferred more often than not.

    `weight` is the difference of what spoke for it and against it, over their sum; a response with as much of both is left
    out. Of four ranked responses the best weighs 1, the second 1/3, the third 1/3 as a bad one, the last 1 as a bad one.
    """
    sides = [
        preferences.select(
            "prompt_id",
            "prompt",
            pl.col(side).alias("response"),
            pl.col(f"{side}_finished").alias("finished"),
            (sign * pl.col("weight")).alias("vote"),
        )
        for side, sign in (("chosen", 1), ("rejected", -1))
    ]
    votes = pl.concat(sides).group_by("prompt_id", "response", "finished", maintain_order=True)
    return (
        votes.agg(pl.first("prompt"), net=pl.sum("vote"), total=pl.col("vote").abs().sum())
        .filter(pl.col("net") != 0)
        .select(
            "prompt_id",
            "prompt",
            "response",
            "finished",
            (pl.col("net") > 0).alias("label"),
            (pl.col("net").abs() / pl.col("total")).alias("weight"),
        )
    )


def from_feedback(feedback: pl.DataFrame) -> pl.DataFrame:
    """Return the responses of the table `feedback` that somebody called good or bad, each time that somebody did."""
    return feedback.filter(pl.col("label").is_not_null()).select(
        "prompt_id",
        "prompt",
        "response",
        pl.lit(value=True).alias("finished"),
        "label",
        pl.lit(1.0).alias("weight"),
    )


def encode_judged(
    tokenizer: PreTrainedTokenizerFast, judged: pl.DataFrame, *, max_length: int
) -> list[Judged]:
    """Encode each response, cut to `max_length` tokens; raises DataRejected unless there are good and bad ones."""
    prompts: dict[str, list[int]] = {}
    found: list[Judged] = []
    cut = 0
    for row in judged.iter_rows(named=True):
        name = row["prompt_id"]
        if name not in prompts:
            prompts[name] = encode_prompt(tokenizer, row["prompt"])
        room = max_length - len(prompts[name])
        response = encode_response(tokenizer, row["response"], finished=row["finished"])
        cut += len(response) > room
        if room > 0:
            found.append(
                Judged(
                    prompt_id=name,
                    prompt=prompts[name],
                    response=response[:room],
                    good=row["label"],
                    weight=row["weight"],
                )
            )
    good = sum(one.good for one in found)
    if not 0 < good < len(found):
        raise DataRejected(
            f"{good} good and {len(found) - good} bad responses are left of {judged.height} within max_length={max_length} "
            "tokens; wanted some of each. Collect both kinds, or raise max_length."
        )
    if cut:
        logger.warning("%d of %d responses were longer than max_length=%d and were cut", cut, judged.height, max_length)  # fmt: skip
    return found
