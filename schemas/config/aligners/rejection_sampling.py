"""The section of rejection sampling."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.config.aligners.section import AlignerSection
from schemas.config.reward import EnsembleScoring
from schemas.config.supervised import OptimiserConfig


class RejectionSamplingConfig(AlignerSection, OptimiserConfig):
    """Supervised fine-tuning on the best of one's own responses (RAFT, Dong et al. 2023)."""

    method: Literal["rejection_sampling"] = "rejection_sampling"
    rounds: int = Field(2, ge=1)
    """Sampling and training, so many times; each round samples what the round before has trained."""
    num_prompts: int = Field(1_024, ge=1)
    """Prompts per round."""
    n: int = Field(8, ge=2, le=256)
    """Responses per prompt, of which the best is learnt from."""
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(64, ge=1)
    sample_batch_size: int = Field(256, ge=1)
    """Sequences decoded together."""
    learning_rate: float = Field(3e-4, gt=0)
    steps: int = Field(64, ge=1)
    """Optimizer steps per round."""
    ensemble: EnsembleScoring = EnsembleScoring()
    """Which score chooses where the reward model is an ensemble."""

    @model_validator(mode="after")
    def _all_weights_are_there(self) -> Self:
        if self.load_in_4bit:
            raise ValueError(
                "load_in_4bit=true is not there for rejection_sampling, which samples from what each round has merged; leave it out"
            )
        return self
