"""Sections of the two stages between SFT and the reward model: sample, and collect preferences."""

from typing import Literal

from pydantic import Field

from schemas.config.section import Section


class SampleConfig(Section):
    """Several responses of the SFT policy to each prompt."""

    num_prompts: int = Field(2_304, ge=2)
    num_responses: int = Field(4, ge=2, le=9)
    """Responses per prompt, ranked against each other."""
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(64, ge=1)
    batch_size: int = Field(256, ge=1)
    """Sequences decoded together."""


class PreferencesConfig(Section):
    """Who ranks the sampled responses."""

    source: Literal["raters", "files"] = "raters"
    """`raters`: the simulated raters of the helpdesk world; `files`: the pairs that the data section names."""
    num_raters: int = Field(5, ge=1)
    """Simulated raters; each prompt is ranked by one of them."""
    noise: float = Field(0.35, ge=0)
    """Standard deviation of a rater's error, in units of utility."""
