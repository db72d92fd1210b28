"""One-sided confidence bounds for the gate: each bound of an interval here errs with probability `error` alone."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from rlhf.evaluation.intervals import wilson
from schemas.record import Interval

Values = npt.NDArray[np.float64]
_STEPS = 60
"""Halvings of the range in which a bound lies: 60 are beyond the precision of a double."""


def share(successes: int, n: int, error: float) -> Interval:
    """Return a share with its score bounds (Wilson 1927)."""
    return wilson(successes, n, 1 - 2 * error)


def paired_shares(gained: int, lost: int, n: int, error: float) -> Interval:
    """Return (gained - lost) / n, the difference of two shares of the same n prompts, with score bounds.

    `gained` prompts count for us alone, `lost` for them alone (Tango 1998, Statistics in Medicine 17, eq. 5).
    Unlike a bootstrap or a Wald interval it keeps its width when nothing differs: 0 of n gives z^2 / (n + z^2).
    """
    if min(gained, lost) < 0 or n < 1 or gained + lost > n:
        raise ValueError(f"{gained} gained and {lost} lost of {n} prompts; wanted at most n of both together")

    def statistic(delta: float) -> float:
        first = -gained - lost + (2 * n - gained + lost) * delta
        root = math.sqrt(max(0.0, first**2 + 8 * n * lost * delta * (1 - delta)))
        smaller = (root - first) / (4 * n)
        variance = n * (2 * smaller + delta * (1 - delta))
        apart = gained - lost - n * delta
        return apart / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, apart)

    z = NormalDist().inv_cdf(1 - error)
    value = (gained - lost) / n
    return Interval(
        value=value,
        low=value if value == -1 else _falls_to(z, statistic, -1.0, value),
        high=value if value == 1 else _falls_to(-z, statistic, value, 1.0),
    )


def mean(values: Values, error: float) -> Interval:
    """Return the mean of one value per prompt with Student's bounds; one value has none (infinite)."""
    value = float(values.mean())
    if values.size < 2:
        return Interval(value=value, low=-math.inf, high=math.inf)
    half = _student(values.size, error) * float(values.std(ddof=1)) / math.sqrt(values.size)
    return Interval(value=value, low=value - half, high=value + half)


def ratio(ours: Values, theirs: Values, error: float) -> Interval:
    """Return the ratio of two means of positive values, paired by prompt, with bounds (Fieller 1954).

    `high <= limit` is the t-test that ours - limit * theirs is not above 0 on average (Hauschke et al. 1999).
    """
    value = float(ours.mean() / theirs.mean())
    if ours.size < 2:
        return Interval(value=value, low=0.0, high=math.inf)

    def statistic(limit: float) -> float:
        apart = ours - limit * theirs
        spread = float(apart.std(ddof=1)) / math.sqrt(apart.size)
        centre = float(apart.mean())
        return centre / spread if spread > 0 else math.copysign(math.inf, centre) if centre else 0.0

    t, top = _student(ours.size, error), 64 * value
    return Interval(
        value=value,
        low=_falls_to(t, statistic, 0.0, value) if statistic(0.0) > t else 0.0,
        high=_falls_to(-t, statistic, value, top) if statistic(top) < -t else math.inf,
    )


def difference(ours: Interval, theirs: Interval) -> Interval:
    """Return the difference of two estimates whose bounds are known (Zou & Donner 2008, MOVER).

    It takes the two as independent, which for the same prompts is on the safe side.
    """
    value = ours.value - theirs.value
    return Interval(
        value=value,
        low=value - math.hypot(ours.value - ours.low, theirs.high - theirs.value),
        high=value + math.hypot(ours.high - ours.value, theirs.value - theirs.low),
    )


def at_error(found: Interval, confidence: float, error: float) -> Interval:
    """Widen or narrow a two-sided interval to bounds of another error, as a normal estimate's would be."""
    scale = NormalDist().inv_cdf(1 - error) / NormalDist().inv_cdf((1 + confidence) / 2)
    return Interval(
        value=found.value,
        low=found.value - scale * (found.value - found.low),
        high=found.value + scale * (found.high - found.value),
    )


def _student(n: int, error: float) -> float:
    return float(stdtrit(n - 1, 1 - error))


def _falls_to(target: float, statistic: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling function takes a value."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if statistic(middle) > target else (low, middle)
    return (low + high) / 2
