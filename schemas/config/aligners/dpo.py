"""The section of DPO."""

from typing import Literal

from pydantic import Field

from schemas.config.aligners.section import AlignerSection
from schemas.config.supervised import OptimiserConfig


class DPOConfig(AlignerSection, OptimiserConfig):
    """Direct preference optimisation (Rafailov et al. 2023) through TRL."""

    method: Literal["dpo"] = "dpo"
    learning_rate: float = Field(1.2e-4, gt=0)
    steps: int = Field(170, ge=1)
    beta: float = Field(0.15, gt=0)
    """Strength of the tether to the reference policy."""
    loss: Literal["sigmoid", "ipo", "hinge", "robust"] = "sigmoid"
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    weighted: bool = True
    """Count a pair by the agreement of its raters."""
