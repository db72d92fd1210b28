"""The section of KTO."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.config.aligners.section import AlignerSection
from schemas.config.supervised import OptimiserConfig


class KTOConfig(AlignerSection, OptimiserConfig):
    """Kahneman-Tversky optimisation of single responses, good or bad (Ethayarajh et al. 2024), through TRL."""

    method: Literal["kto"] = "kto"
    learning_rate: float = Field(1.2e-4, gt=0)
    batch_size: int = Field(64, ge=2)
    """Responses per optimizer step."""
    steps: int = Field(170, ge=1)
    beta: float = Field(0.15, gt=0)
    """Strength of the tether to the reference policy."""
    loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    """By TRL's names."""
    labels: Literal["preferences", "feedback", "both"] = "preferences"
    """From the pairs (good: preferred more often than not), from `data.feedback`, or from both."""
    desirable_weight: float | None = Field(None, gt=0)
    """Of good responses; default: as much as makes both kinds weigh the same in all."""
    undesirable_weight: float = Field(1.0, gt=0)
    weighted: bool = True
    """Count a response by how far its comparisons agree."""

    @model_validator(mode="after")
    def _each_prompt_has_a_stranger(self) -> Self:
        if self.loss == "kto" and self.micro_batch_size == 1:
            raise ValueError(
                "micro_batch_size=1 leaves no other response of the batch to estimate the KL from; use 2 or more, or "
                "loss=apo_zero_unpaired"
            )
        return self
