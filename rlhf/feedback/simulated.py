"""Simulated raters of the helpdesk world: they see the hidden utility through their own bias and noise."""

import polars as pl

from rlhf.data.helpdesk import raters
from rlhf.data.helpdesk.world import World
from schemas.config import PreferencesConfig


def rank(candidates: pl.DataFrame, config: PreferencesConfig, *, world_seed: int, seed: int) -> pl.DataFrame:
    """Return one rater's ranking of each prompt's responses, in the layout of the table `rankings`."""
    world = World(world_seed)
    chosen: list[str] = []
    ranks: list[list[int]] = []
    for row in candidates.iter_rows(named=True):
        rater = int(row["prompt_id"], 16) % config.num_raters
        question = row["prompt"][-1]["content"]
        chosen.append(f"simulated-{rater}")
        ranks.append(
            raters.rank(world, question, row["responses"], rater=rater, noise=config.noise, seed=seed)
        )
    return candidates.select("prompt_id", "prompt", "responses", "finished").with_columns(
        pl.Series("rater", chosen, pl.String), pl.Series("ranks", ranks, pl.List(pl.Int64))
    )
