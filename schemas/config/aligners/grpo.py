"""The section of GRPO."""

from typing import Literal

from schemas.config.aligners.groups import GroupSection
from schemas.config.aligners.online import KLConfig


class GRPOConfig(GroupSection):
    """Group relative policy optimisation (Shao et al. 2024), and what was mended in it since."""

    method: Literal["grpo"] = "grpo"
    kl: KLConfig = KLConfig(estimator="k3+", place="loss")
    loss: Literal["grpo", "dr_grpo", "dapo"] = "grpo"
    """By TRL's names: the mean over responses of their tokens' mean, the sum of all tokens over the same constant for every
    response (Liu et al. 2025), or the mean of all tokens (Yu et al. 2025)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """By whose standard deviation the advantages are divided; `none` is Dr. GRPO's (Liu et al. 2025)."""
