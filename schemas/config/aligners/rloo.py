"""The section of RLOO."""

from typing import Literal

from pydantic import Field

from schemas.config.aligners.groups import GroupSection


class RLOOConfig(GroupSection):
    """REINFORCE with the mean of the other responses as baseline (Ahmadian et al. 2024)."""

    method: Literal["rloo"] = "rloo"
    group_size: int = Field(4, ge=2)
    """Responses per prompt; `batch_size` counts responses."""
