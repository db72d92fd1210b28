"""The section of CPO."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.config.aligners.pairwise import PairwiseSection


class CPOConfig(PairwiseSection):
    """Contrastive preference optimisation (Xu et al. 2024): DPO whose reference is uniform, and SFT beside it."""

    method: Literal["cpo"] = "cpo"
    beta: float = Field(0.15, gt=0)
    """Scale of the difference of log-probabilities; for ipo the paper's tau."""
    loss: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    sft_weight: float = Field(1.0, ge=0)
    """Of the likelihood of the chosen response, per token; TRL's `cpo_alpha`."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of the labels that are taken to be wrong."""

    @model_validator(mode="after")
    def _only_sigmoid_is_smoothed(self) -> Self:
        if self.label_smoothing and self.loss != "sigmoid":
            raise ValueError(
                f"label_smoothing={self.label_smoothing:g} changes nothing for loss={self.loss}; leave it at 0, or use sigmoid"
            )
        return self
