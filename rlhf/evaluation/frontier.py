"""What the score-against-KL curve says: did the policy learn to please the reward model only?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.evaluation import CurvePoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """The best stretch of a curve by gold, compared with its end."""

    peak_iteration: int
    """Last iteration of the stretch with the highest mean gold."""
    peak_gold: float
    final_gold: float
    peak_score: float
    final_score: float
    over_optimised: bool
    """The score went on rising while gold fell by more than noise explains."""


def diagnose(curve: Sequence[CurvePoint]) -> Frontier | None:
    """Compare running means over a fifth of the iterations; None without gold or with fewer than 5 points.

    Over-optimisation (Gao et al. 2023): the proxy rises while gold falls. A fall counts when it exceeds both
    a fifth of what had been gained and three standard errors of the difference.
    """
    gold_per_iteration = [point.gold for point in curve if point.gold is not None]
    if len(curve) < 5 or len(gold_per_iteration) < len(curve):
        return None
    window = len(curve) // 5
    kernel = np.full(window, 1 / window)
    gold = np.convolve(gold_per_iteration, kernel, mode="valid")
    score = np.convolve([point.score for point in curve], kernel, mode="valid")
    peak = int(gold.argmax())
    fall = gold[peak] - gold[-1]
    # Successive differences hold the noise of two iterations and hardly any trend, so this is the standard
    # error of a difference between two running means.
    noise = float(np.std(np.diff(gold_per_iteration))) / np.sqrt(window)
    return Frontier(
        peak_iteration=curve[peak + window - 1].iteration,
        peak_gold=float(gold[peak]),
        final_gold=float(gold[-1]),
        peak_score=float(score[peak]),
        final_score=float(score[-1]),
        over_optimised=bool(score[-1] > score[peak] and fall > max(0.2 * (gold[peak] - gold[0]), 3 * noise)),
    )
