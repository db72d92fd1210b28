"""What the aligners that learn from pairs without a reference policy share."""

from typing import Any, ClassVar

from pydantic import Field, model_validator

from schemas.config.aligners.section import AlignerSection
from schemas.config.supervised import OptimiserConfig


class PairwiseSection(AlignerSection, OptimiserConfig):
    """Pairs alone: the policy begins as the SFT policy, and nothing but the loss itself holds it there."""

    tethers: ClassVar[tuple[str, ...]] = (
        "kl_coef",
        "kl",
        "target_kl",
        "reference",
        "ref_model",
        "sync_ref_model",
    )
    """Keys of other aligners that would tie the policy to a reference; here they would do nothing."""
    learning_rate: float = Field(1.2e-4, gt=0)
    steps: int = Field(170, ge=1)
    weighted: bool = True
    """Count a pair by the agreement of its raters."""

    @model_validator(mode="before")
    @classmethod
    def _there_is_no_reference(cls, given: Any) -> Any:
        found = [key for key in cls.tethers if isinstance(given, dict) and key in given]
        if found:
            method, shared = cls.model_fields["method"].default, OptimiserConfig.model_fields
            own = [key for key in cls.model_fields if key not in shared and key not in ("method", "name")]
            raise ValueError(
                f"{found[0]} would tie the policy to a reference, and {method} has none; its own keys are {', '.join(own)}. "
                "Leave it out, or use dpo, kto or ppo"
            )
        return given
