"""Sections of the two stages between SFT and the reward model: sample, and collect preferences."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.config.section import Section


class SampleConfig(Section):
    """Several responses of the SFT policy to each prompt."""

    num_prompts: int = Field(2_048, ge=2)
    num_responses: int = Field(4, ge=2, le=9)
    """Responses per prompt, ranked against each other."""
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(64, ge=1)
    batch_size: int = Field(256, ge=1)
    """Sequences decoded together."""


class PreferencesConfig(Section):
    """Who ranks the sampled responses, and when that is enough."""

    source: Literal["raters", "people", "files"] = "raters"
    """`raters`: the simulated raters of the helpdesk world; `people`: the run publishes a batch and waits until it is
    closed (`rlhf label serve`); `files`: the pairs that the data section names."""
    num_raters: int = Field(5, ge=1)
    """Simulated raters."""
    noise: float = Field(0.35, ge=0)
    """Standard deviation of a simulated rater's error, in units of utility."""
    overlap: int = Field(1, ge=1)
    """Raters per prompt."""
    quota: float = Field(1.0, gt=0, le=1)
    """The batch closes by itself with this share of the wanted rankings."""
    gold_questions: int = Field(0, ge=0)
    """Questions with a known answer, mixed in to tell who pays attention; only the helpdesk world has them."""
    gold_every: int = Field(10, ge=2)
    """One of so many items that a rater sees is a gold question, where there are some."""
    judging_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the prompts whose pairs only the judge learns from (`evaluate.judge=evaluation_reward`)."""
    margins: bool = False
    """Give each pair a margin, by how many places it was ranked better; the reward model's loss asks for that distance
    (Touvron et al. 2023, section 3.2.2)."""
    guidelines: str = Field(
        "Which answer would you rather get? Right comes first, then polite, then short.\n"
        "Rank the best answer first; answers that are equally good share a place.",
        max_length=20_000,
    )
    """What people are asked to judge by; plain text."""
    timeout_hours: float = Field(24 * 14, gt=0)
    """A suspended run fails when the batch is not closed by then."""

    @model_validator(mode="after")
    def _enough_raters(self) -> Self:
        if self.source == "raters" and self.overlap > self.num_raters:
            raise ValueError(
                f"preferences.overlap={self.overlap} asks for more raters than preferences.num_raters={self.num_raters}"
            )
        return self
