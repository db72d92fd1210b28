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


OnStep = Callable[[StepMetrics], None]
"""Called in the training process, between two steps; an exception from it ends the training."""
