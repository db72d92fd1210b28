"""Simple preference optimisation (Meng et al. 2024): log-probabilities per token, with a margin."""

from pathlib import Path
from typing import Unpack

import polars as pl

from rlhf.algorithms.pairwise import simpo
from rlhf.training import pairwise
from rlhf.training.pairwise import FitOptions
from schemas.config import SimPOConfig


def fit(
    sft: Path, preferences: pl.DataFrame, config: SimPOConfig, **options: Unpack[FitOptions]
) -> dict[str, float]:
    """Train the SFT policy on the preferences, save it to `out`, and return the last steps' mean metrics."""
    return pairwise.fit(
        sft,
        preferences,
        config,
        lambda policy: simpo(policy, beta=config.beta, margin=config.margin, sft_weight=config.sft_weight),
        **options,
    )
