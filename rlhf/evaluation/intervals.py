"""Confidence intervals: Wilson for shares, percentile bootstrap for means of paired values."""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from schemas.record import Interval

DRAWN_AT_ONCE = 4_000_000
"""Values drawn per block of resamples, which bounds memory to a few tens of megabytes."""


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Return a share with its score interval (Wilson 1927); a tie may count as half a success."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n} trials; wanted 0 <= successes <= n and n >= 1")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    shrink = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding may put a bound a hair inside the estimate when the share is 0 or 1.
    return Interval(
        value=share, low=max(0.0, min(centre - half, share)), high=min(1.0, max(centre + half, share))
    )


def bootstrap_mean(
    values: Sequence[float] | npt.NDArray[np.float64], *, confidence: float, samples: int, seed: int
) -> Interval:
    """Return the mean of one value per prompt with its percentile bootstrap interval (Efron 1979).

    Resampling whole prompts keeps what is paired by prompt together: pass differences, or wins as 1, 0.5, 0.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size < 1:
        raise ValueError(f"values of shape {data.shape}; wanted one value per prompt, at least one")
    means = np.concatenate([data[rows].mean(axis=1) for rows in resampled(data.size, samples, seed)])
    return percentiles(float(data.mean()), means, confidence)


def bootstrap_ratio(
    numerators: Sequence[float] | npt.NDArray[np.float64],
    denominators: Sequence[float] | npt.NDArray[np.float64],
    *,
    confidence: float,
    samples: int,
    seed: int,
) -> Interval:
    """Return a ratio of sums, such as nats over tokens, with its interval; whole documents are resampled.

    So it is with the pairs of a prompt: they are not independent, and an interval over pairs would be too narrow.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if above.shape != below.shape or above.ndim != 1 or above.size < 1 or not below.sum() > 0:
        raise ValueError(
            f"{above.shape} numerators and {below.shape} denominators; wanted one of each per document, at least one"
        )
    ratios = np.concatenate(
        [above[rows].sum(axis=1) / below[rows].sum(axis=1) for rows in resampled(above.size, samples, seed)]
    )
    return percentiles(float(above.sum() / below.sum()), ratios, confidence)


def resampled(size: int, samples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield blocks (block, size) of rows drawn with replacement, `samples` in all."""
    generator = np.random.default_rng(seed)
    block = max(1, DRAWN_AT_ONCE // size)
    for done in range(0, samples, block):
        yield generator.integers(size, size=(min(block, samples - done), size))


def percentiles(value: float, resamples: npt.NDArray[np.float64], confidence: float) -> Interval:
    """Return an estimate with the percentile interval of its resamples."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(resamples, [tail, 1 - tail])
    return Interval(value=value, low=float(low), high=float(high))
