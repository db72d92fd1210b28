"""The section of PPO."""

from typing import Literal

from pydantic import Field

from schemas.config.aligners.online import OnlineSection
from schemas.config.section import Section


class PTXConfig(Section):
    """PPO-ptx: examples that the policy goes on to learn from beside its rewards (Ouyang et al. 2022, eq. 2)."""

    coef: float = Field(0.1, gt=0)
    """Weight of their loss per token against PPO's loss per token."""
    source: Literal["demonstrations", "corpus"] = "demonstrations"
    """What SFT learnt from, or raw text as in the paper (only where the recipe has a corpus)."""
    batch_size: int = Field(16, ge=1)
    """Examples per optimizer step."""
    max_length: int = Field(128, ge=8)
    """Longest example in tokens; longer ones are cut."""


class PPOConfig(OnlineSection):
    """Proximal policy optimisation (Schulman et al. 2017) as in InstructGPT (Ouyang et al. 2022)."""

    method: Literal["ppo"] = "ppo"
    critic_learning_rate: float = Field(2e-4, gt=0)
    critic_warmup_iterations: int = Field(0, ge=0)
    """First iterations in which only the critic learns."""
    shared_trunk: bool = False
    """Read the values off the policy's own trunk instead of a critic of its own: about half the work."""
    ptx: PTXConfig | None = None
    """Mix the loss of supervised examples in; default: the KL is the only tether."""
    value_clip_range: float = Field(0.2, gt=0)
    value_coef: float = Field(0.5, gt=0)
    """Weight of the value loss; a critic of its own only has its gradient scaled by it."""
    gamma: float = Field(1.0, gt=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    """GAE's lambda (Schulman et al. 2015)."""
