"""Confidence intervals: Wilson for shares, percentile bootstrap for means of paired values."""

import math
from collections.abc import Sequence
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
    return bootstrap_ratio(data, np.ones_like(data), confidence=confidence, samples=samples, seed=seed)


def bootstrap_ratio(
    hits: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.float64],
    *,
    confidence: float,
    samples: int,
    seed: int,
) -> Interval:
    """Return sum(hits) / sum(sizes) of one value each per prompt, with the interval of resampling whole prompts.

    Several pairs of one prompt are not independent: an interval over pairs would be too narrow.
    """
    if hits.ndim != 1 or hits.size < 1:
        raise ValueError(f"values of shape {hits.shape}; wanted one value per prompt, at least one")
    generator = np.random.default_rng(seed)
    block = max(1, DRAWN_AT_ONCE // hits.size)
    ratios = []
    for done in range(0, samples, block):
        drawn = generator.integers(hits.size, size=(min(block, samples - done), hits.size))
        ratios.append(hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(ratios), [tail, 1 - tail])
    return Interval(value=float(hits.sum() / sizes.sum()), low=float(low), high=float(high))
