"""The section of SimPO."""

from typing import Literal

from pydantic import Field

from schemas.config.aligners.pairwise import PairwiseSection


class SimPOConfig(PairwiseSection):
    """Simple preference optimisation (Meng et al. 2024): log-probabilities per token, with a margin."""

    method: Literal["simpo"] = "simpo"
    beta: float = Field(2.0, gt=0)
    """Scale of the difference of log-probabilities per token."""
    margin: float = Field(1.0, ge=0)
    """By which the scaled difference should exceed 0: the paper's gamma."""
    sft_weight: float = Field(0.0, ge=0)
    """Of the likelihood of the chosen response, per token; above 0 it is CPO-SimPO."""
