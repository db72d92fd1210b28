"""Who says which of two responses is better: one interface for the hidden utility, reward models, people and LLMs."""

from collections.abc import Sequence
from typing import Protocol

import polars as pl

from rlhf.data.helpdesk.utility import judge
from rlhf.data.helpdesk.world import World
from schemas.errors import ConfigError, DataRejected

JUDGES = {
    "utility": "the hidden utility, which training never sees",
    "evaluation_reward": "a reward model of preferences that nothing else was trained on",
    "people": "people, on the labelling page",
    "llm": "a language model, asked in both orders",
    "reward": "the reward model, which is what the aligners were trained on",
}
"""Each judge in words, by its name in the recipe."""


class Judge(Protocol):
    """Compares responses to the same prompts."""

    def outcomes(self, pairs: pl.DataFrame) -> Sequence[float | None]:
        """Return 1 where the response wins, 0 where the baseline's does, 0.5 for a tie, None where nobody judged.

        `pairs` has the columns of the table `samples`, and again with the suffix `_baseline`.
        """
        ...


class ColumnJudge:
    """Prefers the larger value of a column: `gold`, or the `score` of the reward model that was optimised."""

    def __init__(self, column: str) -> None:
        self.column = column

    def outcomes(self, pairs: pl.DataFrame) -> Sequence[float | None]:
        """Compare the columns; refuse samples that lack the value."""
        if missing := pairs[self.column].null_count():
            lacking = "a world that knows the truth" if self.column == "gold" else "a reward model"
            raise ConfigError(
                f"{missing} of {pairs.height} responses have no {self.column}, for want of {lacking}; name another "
                "evaluate.judge, or give what is missing."
            )
        return compare(pairs[self.column].to_list(), pairs[f"{self.column}_baseline"].to_list())


def compare(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return 1, 0.5 or 0 for each pair of values."""
    return [0.5 if left == right else float(left > right) for left, right in zip(ours, theirs, strict=True)]


def verdicts(judge: Judge, samples: pl.DataFrame, baseline: pl.DataFrame) -> pl.DataFrame:
    """Return prompt_id, outcome and both lengths in characters, for each prompt that was judged.

    Responses that are the same, character by character, are a tie that no judge is asked about.
    """
    pairs = paired(samples, baseline)
    same = (pairs["response"] == pairs["response_baseline"]) & (
        pairs["finished"] == pairs["finished_baseline"]
    )
    asked = iter(judge.outcomes(pairs.filter(~same)))
    outcomes = [0.5 if tied else next(asked) for tied in same]
    return pairs.select(
        "prompt_id",
        pl.Series("outcome", outcomes, pl.Float64),
        pl.col("response").str.len_chars().alias("characters"),
        pl.col("response_baseline").str.len_chars().alias("characters_baseline"),
    ).filter(pl.col("outcome").is_not_null())


def paired(samples: pl.DataFrame, baseline: pl.DataFrame) -> pl.DataFrame:
    """Return both sides by prompt; refuse tables that do not answer the same prompts."""
    pairs = samples.join(baseline, on="prompt_id", validate="1:1", suffix="_baseline", maintain_order="left")
    if not pairs.height == samples.height == baseline.height:
        raise DataRejected(
            f"{samples.height} samples and {baseline.height} of the baseline share {pairs.height} prompts; "
            "wanted the same prompts on both sides: sample both with the same seed and evaluate section"
        )
    return pairs


def with_gold(samples: pl.DataFrame, world: World | None) -> pl.DataFrame:
    """Add the columns `gold` (hidden utility), `right` and `rude`; nulls where no world knows the truth."""
    judgements = (
        [
            judge(world, prompt[-1]["content"], response)
            for prompt, response in samples.select("prompt", "response").iter_rows()
        ]
        if world is not None
        else []
    )
    missing = [None] * samples.height
    return samples.with_columns(
        pl.Series("gold", [found.utility for found in judgements] or missing, dtype=pl.Float64),
        pl.Series("right", [found.right for found in judgements] or missing, dtype=pl.Boolean),
        pl.Series("rude", [found.rude for found in judgements] or missing, dtype=pl.Boolean),
    )
