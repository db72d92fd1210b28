"""What a training loop tells the outside world after each optimizer step."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """One optimizer step (one iteration, for online aligners)."""

    step: int
    """From 1."""
    total: int
    metrics: dict[str, float]
    """By name, without the stage's prefix."""
    tokens: int
    """Real (unpadded) tokens that this step worked on."""
    sampled_tokens: int = 0
    """Response tokens that were drawn from a policy for it."""
    gradient_tokens: int = 0
    """Tokens, prompts included, that a policy (or reward model) learnt from; a second pass over them counts again."""


OnStep = Callable[[StepMetrics], None]
"""Called in the training process, between two steps; an exception from it ends the training."""
