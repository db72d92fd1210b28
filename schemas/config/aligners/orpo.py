"""The section of ORPO."""

from typing import ClassVar, Literal

from pydantic import Field

from schemas.config.aligners.pairwise import PairwiseSection


class ORPOConfig(PairwiseSection):
    """Odds ratio preference optimisation (Hong et al. 2024)."""

    tethers: ClassVar[tuple[str, ...]] = (*PairwiseSection.tethers, "beta")
    method: Literal["orpo"] = "orpo"
    odds_weight: float = Field(0.1, gt=0)
    """Of the odds ratio beside the likelihood of the chosen response: the paper's lambda, TRL's `beta`."""
