"""Section of labelling: how often the loop of sampling, ranking and aligning is gone through, and on what."""

from typing import Literal

from pydantic import Field

from schemas.config.section import Section


class LabellingConfig(Section):
    """Iterated online RLHF (Bai et al. 2022, section 4.5): each round ranks what the latest policies say.

    Reward model and aligners start from the SFT policy in every round, on the rankings of all rounds so far.
    """

    rounds: int = Field(1, ge=1)
    """1: the SFT policy's responses are ranked once."""
    select: Literal["random", "disagreement"] = "random"
    """Which prompts are ranked from the second round on: those that have not been asked yet as they come, or of `pool`
    times as many those on whose responses the members of the reward ensemble disagree most (needs `reward.ensemble`)."""
    pool: int = Field(4, ge=2)
    """Prompts that `disagreement` chooses one from."""
