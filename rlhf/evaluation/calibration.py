"""Is a reward model as sure as it is right? Confidence, calibration error and temperature (Guo et al. 2017).

A difference d of two scores says that the first response is preferred with probability sigmoid(d), by the Bradley-Terry model.
"""

import numpy as np
import numpy.typing as npt

from schemas.reward_quality import Calibration, ReliabilityBin

Floats = npt.NDArray[np.float64]

BINS = 10
_SHARPEST, _BLUNTEST = 1e-3, 1e3
"""Bounds of the temperature: without a mistake among the pairs none is too sharp."""


def calibrate(gaps: Floats, folds: npt.NDArray[np.int64]) -> Calibration:
    """Describe differences chosen - rejected, one per pair; `folds` (0 or 1) keeps the pairs of a prompt together.

    The temperature that a pair is judged with was fitted on the other fold, so that it does not flatter.
    """
    fitted = gaps.copy()
    for fold in (0, 1):
        if (folds == fold).any() and (folds != fold).any():
            fitted[folds == fold] /= fit_temperature(gaps[folds != fold])
    bins, fitted_bins = reliability(gaps), reliability(fitted)
    return Calibration(
        error=expected_error(bins),
        temperature=fit_temperature(gaps),
        fitted_error=expected_error(fitted_bins),
        bins=bins,
        fitted_bins=fitted_bins,
    )


def reliability(gaps: Floats, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Sort pairs by confidence into equal bins of [0.5, 1]; a tie of the scores is half right. Empty bins are left out."""
    confidence = _sigmoid(np.abs(gaps))
    right = (gaps > 0) + 0.5 * (gaps == 0)
    places = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    return tuple(
        ReliabilityBin(
            confidence=float(confidence[places == place].mean()),
            accuracy=float(right[places == place].mean()),
            pairs=int((places == place).sum()),
        )
        for place in range(bins)
        if (places == place).any()
    )


def expected_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Return the mean of |accuracy - confidence| over pairs (Guo et al. 2017, eq. 5)."""
    total = sum(found.pairs for found in bins)
    return sum(found.pairs * abs(found.accuracy - found.confidence) for found in bins) / total


def fit_temperature(gaps: Floats) -> float:
    """Return the T that minimises the mean of -log sigmoid(gap / T).

    It is convex in 1 / T, so the sign of the slope leads to the minimum, by bisection.
    """
    low, high = 1 / _BLUNTEST, 1 / _SHARPEST
    for _ in range(100):
        middle = (low * high) ** 0.5
        if (gaps * _sigmoid(-middle * gaps)).mean() > 0:  # minus the slope: a sharper one fits better
            low = middle
        else:
            high = middle
    return float(1 / (low * high) ** 0.5)


def partial_correlation(left: Floats, right: Floats, given: Floats) -> float:
    """Return the correlation of two variables once what `given` explains of each, linearly, is taken out."""
    return correlation(_residual(left, given), _residual(right, given))


def correlation(left: Floats, right: Floats) -> float:
    """Return Pearson's correlation; 0 where one of the two does not vary."""
    left, right = left - left.mean(), right - right.mean()
    scale = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum()) / scale if scale > 0 else 0.0


def exceeds(positive: Floats, negative: Floats) -> float:
    """Return the probability that a positive is larger than a negative, ties half: the area under the ROC curve."""
    if not positive.size or not negative.size:
        return 0.5
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    up_to = np.searchsorted(ordered, positive, side="right")
    return float((below + up_to).mean() / (2 * negative.size))


def _residual(values: Floats, given: Floats) -> Floats:
    centred, cause = values - values.mean(), given - given.mean()
    spread = float((cause**2).sum())
    slope = float((centred * cause).sum()) / spread if spread > 0 else 0.0
    residual: Floats = centred - cause * slope
    return residual


def _sigmoid(values: Floats) -> Floats:
    # The two forms keep the exponential from overflowing.
    small = np.exp(-np.abs(values))
    sigmoid: Floats = np.where(values >= 0, 1 / (1 + small), small / (1 + small))
    return sigmoid
