"""What a judge sees in each response: hidden utility (gold), right or wrong, rude or not."""

import polars as pl

from rlhf.data.helpdesk.utility import judge
from rlhf.data.helpdesk.world import World

JUDGES = {
    "utility": "the hidden utility, which training never sees",
    "evaluation_reward": "a reward model of preferences that nothing else was trained on",
    "people": "people, on the labelling page",
    "llm": "a language model, asked in both orders",
    "reward": "the reward model, which is what the aligners were trained on",
}
"""Each judge in words, by its name in the recipe."""


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
