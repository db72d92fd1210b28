"""Odds ratio preference optimisation (Hong et al. 2024): the chosen response's likelihood, and its odds against the rejected one's."""

from pathlib import Path
from typing import Unpack

import polars as pl

from rlhf.algorithms.pairwise import orpo
from rlhf.training import pairwise
from rlhf.training.pairwise import FitOptions
from schemas.config import ORPOConfig


def fit(
    sft: Path, preferences: pl.DataFrame, config: ORPOConfig, **options: Unpack[FitOptions]
) -> dict[str, float]:
    """Train the SFT policy on the preferences, save it to `out`, and return the last steps' mean metrics."""
    return pairwise.fit(
        sft,
        preferences,
        config,
        lambda policy: orpo(policy, odds_weight=config.odds_weight),
        **options,
    )
