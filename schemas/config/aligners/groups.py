"""What the aligners share that compare the responses to one prompt with each other, in place of a critic."""

from typing import Self

from pydantic import Field, model_validator

from schemas.config.aligners.online import OnlineSection


class GroupSection(OnlineSection):
    """Several responses to each prompt; a response is worth what it scores above the others."""

    group_size: int = Field(8, ge=2)
    """Responses per prompt; `batch_size` counts responses."""
    epochs: int = Field(1, ge=1)
    """Passes over each rollout."""

    @model_validator(mode="after")
    def _groups_tile_the_batch(self) -> Self:
        if self.batch_size % self.group_size:
            raise ValueError(
                f"batch_size={self.batch_size} is not a multiple of group_size={self.group_size}"
            )
        return self
