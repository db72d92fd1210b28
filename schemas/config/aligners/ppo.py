"""The section of PPO."""

from typing import Literal

from pydantic import Field

from schemas.config.aligners.online import OnlineSection


class PPOConfig(OnlineSection):
    """Proximal policy optimisation (Schulman et al. 2017) as in InstructGPT (Ouyang et al. 2022)."""

    method: Literal["ppo"] = "ppo"
    critic_learning_rate: float = Field(2e-4, gt=0)
    critic_warmup_iterations: int = Field(0, ge=0)
    """First iterations in which only the critic learns."""
    shared_trunk: bool = False
    """Read the values off the policy's own trunk instead of a critic of its own: about half the work."""
    value_clip_range: float = Field(0.2, gt=0)
    value_coef: float = Field(0.5, gt=0)
    """Weight of the value loss; a critic of its own only has its gradient scaled by it."""
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    """GAE's lambda (Schulman et al. 2015)."""
