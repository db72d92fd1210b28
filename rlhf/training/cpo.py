"""Contrastive preference optimisation (Xu et al. 2024)."""

from pathlib import Path
from typing import Unpack

import polars as pl

from rlhf.algorithms.pairwise import cpo
from rlhf.training import pairwise
from rlhf.training.pairwise import FitOptions
from schemas.config import CPOConfig


def fit(
    sft: Path, preferences: pl.DataFrame, config: CPOConfig, **options: Unpack[FitOptions]
) -> dict[str, float]:
    """Train the SFT policy on the preferences, save it to `out`, and return the last steps' mean metrics."""
    return pairwise.fit(
        sft,
        preferences,
        config,
        lambda policy: cpo(
            policy,
            beta=config.beta,
            loss=config.loss,
            sft_weight=config.sft_weight,
            label_smoothing=config.label_smoothing,
        ),
        **options,
    )
