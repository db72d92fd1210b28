"""The section of the reward model, and how the scores of an ensemble are used."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.config.models import BaseModelConfig
from schemas.config.section import Section
from schemas.config.supervised import OptimiserConfig


class EnsembleConfig(Section):
    """Several reward models on one trunk: where they disagree, none of them should be trusted."""

    kind: Literal["heads", "adapters"] = "heads"
    """`heads`: one trunk and one forward pass, each head with a bootstrap sample of the comparisons; `adapters`: a LoRA
    adapter and a head per member, each with an order and a start of its own (needs `lora`)."""
    size: int = Field(4, ge=2, le=16)


class EnsembleScoring(Section):
    """How the scores of an ensemble's members become the one that is optimised (Coste et al. 2023)."""

    combine: Literal["mean", "worst", "uncertainty", "lower_bound"] = "mean"
    variance_coef: float = Field(0.5, ge=0)
    """What `uncertainty` subtracts for each unit of variance between the members."""
    std_coef: float = Field(1.0, ge=0)
    """What `lower_bound` subtracts for each standard deviation between the members."""


class RewardConfig(OptimiserConfig):
    """Reward model on comparisons (Ouyang et al. 2022, eq. 1), initialised from the SFT policy."""

    learning_rate: float = Field(5e-4, gt=0)
    batch_size: int = Field(6, ge=1)
    """Prompts per optimizer step, each with all of its compared responses."""
    steps: int = Field(400, ge=1)
    base: BaseModelConfig | None = None
    """Start from this model, with its own tokenizer and chat template, in place of the SFT policy."""
    loss: Literal["bradley_terry", "plackett_luce"] = "bradley_terry"
    """All pairs of a prompt, or its rankings as a whole; pairs from files are rankings of two."""
    weighted: bool = True
    """Count a pair by the agreement of its raters and a ranking by the reliability of its rater."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of the labels that are taken for wrong (only for `bradley_terry`)."""
    center_coefficient: float = Field(0.01, ge=0)
    """Weight of the squared mean score of a prompt, which keeps scores centred (Eisenstein et al. 2023)."""
    length_decorrelation: float = Field(0.0, ge=0)
    """Weight of the squared correlation of score and length within prompts (Chen et al. 2024)."""
    ensemble: EnsembleConfig | None = None
    held_out_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Share of the prompts whose pairs are kept for measuring accuracy, never trained on."""

    @model_validator(mode="after")
    def _what_goes_together(self) -> Self:
        if self.loss == "plackett_luce" and self.label_smoothing:
            raise ValueError(
                f"label_smoothing={self.label_smoothing} needs loss=bradley_terry; a ranking has no label to smooth"
            )
        if self.ensemble and self.ensemble.kind == "adapters" and self.lora is None:
            raise ValueError("ensemble.kind=adapters needs lora; set lora.rank, or ensemble.kind=heads")
        return self
