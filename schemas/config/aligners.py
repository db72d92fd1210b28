"""Sections of the aligners: a discriminated union on `method`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.config.models import LoraConfig
from schemas.config.section import Section
from schemas.config.supervised import OptimiserConfig


class PPOConfig(Section):
    """Proximal policy optimisation (Schulman et al. 2017) as in InstructGPT (Ouyang et al. 2022)."""

    method: Literal["ppo"] = "ppo"
    name: str = Field("ppo", pattern=r"^[a-z][a-z0-9_-]*$")
    """What the recipe, the pages and the overrides call this aligner."""
    iterations: int = Field(30, ge=1)
    """Rollout + update, so many times."""
    batch_size: int = Field(128, ge=2)
    """Responses per iteration."""
    minibatch_size: int = Field(32, ge=1)
    """Responses per optimizer step."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Responses per forward pass; default: the whole minibatch."""
    epochs: int = Field(2, ge=1)
    """Passes over each rollout."""
    learning_rate: float = Field(7e-5, gt=0)
    critic_learning_rate: float = Field(2e-4, gt=0)
    warmup_iterations: int = Field(2, ge=0)
    """Iterations over which both learning rates rise from zero."""
    max_grad_norm: float = Field(1.0, gt=0)
    kl_coef: float = Field(0.1, ge=0)
    """Weight of the per-token KL penalty against the reference policy, in the reward."""
    target_kl: float | None = Field(0.05, gt=0)
    """Skip the rest of an iteration's updates once the mean KL from the rollout policy exceeds this."""
    clip_range: float = Field(0.2, gt=0)
    value_clip_range: float = Field(0.2, gt=0)
    value_coef: float = Field(0.5, gt=0)
    """Weight of the value loss; the critic is a model of its own, so it only scales its gradient."""
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    """GAE's lambda (Schulman et al. 2015)."""
    temperature: float = Field(1.0, gt=0)
    """Used for sampling and for scoring alike."""
    max_new_tokens: int = Field(64, ge=1)
    missing_eos_penalty: float = Field(1.0, ge=0)
    """Subtracted from the score of a response that no stop id ends."""
    score_clip: float = Field(5.0, gt=0)
    """Normalised scores are clipped to plus and minus this; KL terms never are."""
    lora: LoraConfig | None = None

    @model_validator(mode="after")
    def _batches_tile(self) -> Self:
        if self.batch_size % self.minibatch_size:
            raise ValueError(
                f"batch_size={self.batch_size} is not a multiple of minibatch_size={self.minibatch_size}"
            )
        if self.micro_batch_size is not None and self.minibatch_size % self.micro_batch_size:
            raise ValueError(
                f"minibatch_size={self.minibatch_size} is not a multiple of "
                f"micro_batch_size={self.micro_batch_size}"
            )
        return self


class DPOConfig(OptimiserConfig):
    """Direct preference optimisation (Rafailov et al. 2023) through TRL."""

    method: Literal["dpo"] = "dpo"
    name: str = Field("dpo", pattern=r"^[a-z][a-z0-9_-]*$")
    """What the recipe, the pages and the overrides call this aligner."""
    learning_rate: float = Field(1.5e-4, gt=0)
    steps: int = Field(120, ge=1)
    beta: float = Field(0.1, gt=0)
    """Strength of the tether to the reference policy."""
    loss: Literal["sigmoid", "ipo", "hinge", "robust"] = "sigmoid"
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)


AlignerConfig = Annotated[PPOConfig | DPOConfig, Field(discriminator="method")]
