"""The section of DPO."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from schemas.config.aligners.section import AlignerSection
from schemas.config.section import Section
from schemas.config.supervised import OptimiserConfig

DPOLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
"""By TRL's names."""
_SMOOTHED = {"robust", "exo_pair", "aot", "aot_unpaired"}
_SORTED = {"aot", "aot_unpaired"}


class PairUse(Section):
    """Which pairs an aligner learns from (with the run's seed), and where it cuts them."""

    max_length: int
    batch_size: int
    steps: int


class DPOConfig(AlignerSection, OptimiserConfig):
    """Direct preference optimisation (Rafailov et al. 2023) and its relatives, through TRL."""

    method: Literal["dpo"] = "dpo"
    learning_rate: float = Field(1.2e-4, gt=0)
    steps: int = Field(170, ge=1)
    beta: float = Field(0.15, gt=0)
    """Strength of the tether to the reference policy."""
    loss: Annotated[
        tuple[DPOLoss, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)
    ] = Field(("sigmoid",), min_length=1)
    """One loss, or several that are added up."""
    loss_weights: tuple[float, ...] | None = None
    """Of several losses, in their order; default: 1 each."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of the labels that are taken to be wrong, for the losses that know of it."""
    weighted: bool = True
    """Count a pair by the agreement of its raters."""

    @model_validator(mode="after")
    def _losses_have_weights(self) -> Self:
        if len(set(self.loss)) < len(self.loss):
            raise ValueError(f"loss={list(self.loss)} names one twice; use loss_weights to count it more")
        if self.loss_weights is not None and len(self.loss_weights) != len(self.loss):
            raise ValueError(
                f"loss_weights has {len(self.loss_weights)} numbers for {len(self.loss)} losses; give one each"
            )
        return self

    @model_validator(mode="after")
    def _losses_use_what_they_are_given(self) -> Self:
        if self.label_smoothing and not _SMOOTHED & set(self.loss):
            raise ValueError(
                f"label_smoothing={self.label_smoothing:g} changes nothing for loss={', '.join(self.loss)}; leave it at 0, "
                f"or use one of {', '.join(sorted(_SMOOTHED))}"
            )
        if "exo_pair" in self.loss and not self.label_smoothing:
            raise ValueError(
                "loss=exo_pair takes the logarithm of label_smoothing; set it above 0, such as 0.001"
            )
        if self.weighted and (sorted_ := sorted(_SORTED & set(self.loss))):
            raise ValueError(
                f"loss={sorted_[0]} compares the sorted batch and cannot count one pair more than another; "
                "set weighted=false"
            )
        return self
