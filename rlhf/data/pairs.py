"""Preference pairs as token ids, the same for the reward model, its evaluation, and DPO."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhf.data.chat import encode_prompt, encode_response
from schemas.errors import DataRejected

if TYPE_CHECKING:
    import polars as pl
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One comparison; the responses end with EOS unless they were cut, by the sampler or here."""

    row: int
    """Of the table that it comes from."""
    prompt_id: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    margin: float = 0.0
    weight: float = 1.0
    """How far its raters agree, or how many votes it stands for."""

    @property
    def length(self) -> int:
        """Tokens of the prompt with the longer response."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def encode_pairs(
    tokenizer: PreTrainedTokenizerFast,
    preferences: pl.DataFrame,
    *,
    max_length: int,
) -> list[Pair]:
    """Encode each preference, cut to `max_length` tokens; pairs that this makes equal are left out."""
    prompts: dict[str, list[int]] = {}
    pairs: list[Pair] = []
    cut = 0
    for number, row in enumerate(preferences.iter_rows(named=True)):
        name = row["prompt_id"]
        if name not in prompts:
            prompts[name] = encode_prompt(tokenizer, row["prompt"])
        prompt = prompts[name]
        room = max(max_length - len(prompt), 0)
        whole = [
            encode_response(tokenizer, row[side], finished=row[f"{side}_finished"])
            for side in ("chosen", "rejected")
        ]
        cut += max(map(len, whole)) > room
        chosen, rejected = (ids[:room] for ids in whole)
        if chosen != rejected:
            pairs.append(
                Pair(
                    row=number,
                    prompt_id=name,
                    prompt=prompt,
                    chosen=chosen,
                    rejected=rejected,
                    margin=row["margin"] or 0.0,
                    weight=row["weight"],
                )
            )
    if not pairs:
        raise DataRejected(
            f"None of the {len(preferences)} preferences differ within max_length={max_length} tokens; "
            "raise max_length or check the data."
        )
    if cut:
        logger.warning(
            "%d of %d pairs were longer than max_length=%d and were cut; %d became equal and were left out",
            cut, len(preferences), max_length, len(preferences) - len(pairs),
        )  # fmt: skip
    return pairs
