"""Which prompts are worth a rater's time."""

from collections.abc import Sequence

import polars as pl


def next_prompts(prompts: pl.DataFrame, asked: Sequence[pl.DataFrame], number: int) -> pl.DataFrame:
    """Return up to `number` prompts in their order: those that nobody was asked about first, then the longest ago."""
    last_round = {
        prompt_id: place for place, table in enumerate(asked, start=1) for prompt_id in table["prompt_id"]
    }
    when = [last_round.get(prompt_id, 0) for prompt_id in prompts["prompt_id"]]
    order = sorted(range(prompts.height), key=lambda row: when[row])  # stable: equal ones stay in order
    return prompts[order[:number]]
