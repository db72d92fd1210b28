"""What `rlhf serve --guard FILE` reads: the rules around a served model."""

import re
from typing import Self

from pydantic import Field, field_validator, model_validator

from schemas.config.section import Section


class GuardConfig(Section):
    """Input rules, then a choice among responses by the reward model, then output rules."""

    refusal: str = Field("I am sorry, I cannot help with that.", min_length=1)
    """Said in the place of what a rule forbids."""
    max_prompt_chars: int = Field(8_000, ge=1)
    """Characters of all messages together; longer conversations are refused."""
    blocked_input: tuple[str, ...] = ()
    """Regular expressions, searched in every message of the user without regard to case."""
    blocked_output: tuple[str, ...] = ()
    """The same for responses."""
    best_of: int = Field(1, ge=1, le=64)
    """Responses drawn, of which the one with the highest score is given."""
    min_score: float | None = None
    """Refuse when the best normalised score lies below this (0 is an average response of the SFT policy)."""

    @field_validator("blocked_input", "blocked_output")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return patterns

    @model_validator(mode="after")
    def _says_nothing_forbidden(self) -> Self:
        if any(re.search(pattern, self.refusal, re.IGNORECASE) for pattern in self.blocked_output):
            raise ValueError("the refusal itself is forbidden by blocked_output; say it in other words")
        return self

    @property
    def needs_reward(self) -> bool:
        """Tell whether a reward model has to score the responses."""
        return self.best_of > 1 or self.min_score is not None
