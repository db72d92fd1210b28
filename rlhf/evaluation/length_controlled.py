"""The win rate had both policies written equally long (Dubois et al. 2024, length-controlled AlpacaEval).

A logistic model of the outcome on prompt x, q = sigmoid(theta + phi tanh(d_x / std(d))), where d_x is the length of
the response less that of the baseline's. Without the length term it predicts sigmoid(theta). The paper adds the
difficulty of each prompt, which only many policies on the same prompts can tell; two policies alone do not.
"""

import numpy as np
import numpy.typing as npt

from rlhf.evaluation.intervals import percentiles, resampled
from schemas.record import Interval

RIDGE = 1e-6
"""Weight of (theta^2 + phi^2) / 2, against n log-likelihoods: keeps the fit finite where one side wins every time."""
_STEPS = 50

Floats = npt.NDArray[np.float64]


def length_controlled(
    outcomes: npt.ArrayLike,
    lengths: npt.ArrayLike,
    baseline_lengths: npt.ArrayLike,
    *,
    confidence: float,
    samples: int,
    seed: int,
) -> Interval:
    """Return the length-controlled win rate with the interval of resampled prompts.

    `outcomes` are 1, 0.5, 0 or anything between; lengths are characters, one of each per prompt.
    """
    won, ours, theirs = (
        np.asarray(values, dtype=np.float64) for values in (outcomes, lengths, baseline_lengths)
    )
    if not won.shape == ours.shape == theirs.shape or won.ndim != 1 or won.size < 1:
        raise ValueError(f"shapes {won.shape}, {ours.shape}, {theirs.shape}; wanted one of each per prompt")
    longer = length_term(ours, theirs)
    weights = (
        np.stack([np.bincount(row, minlength=won.size) for row in rows]).astype(np.float64)
        for rows in resampled(won.size, samples, seed)
    )
    resamples = np.concatenate([win_rate(fit(won, longer, block)) for block in weights])
    return percentiles(float(win_rate(fit(won, longer, np.ones((1, won.size))))[0]), resamples, confidence)


def length_term(lengths: Floats, baseline_lengths: Floats) -> Floats:
    """Return tanh of the length difference in standard deviations (n - 1 in the denominator), as AlpacaEval has it."""
    difference = lengths - baseline_lengths
    deviation = difference.std(ddof=1) if difference.size > 1 else 0.0
    return np.tanh(difference / deviation) if deviation > 0 else np.zeros_like(difference)


def win_rate(coefficients_R2: Floats) -> Floats:
    """Return sigmoid(theta) of each fit: the outcome at no difference in length."""
    theta_R = coefficients_R2[:, 0]
    return 1 / (1 + np.exp(-theta_R))


def fit(outcomes_N: Floats, longer_N: Floats, weights_RN: Floats) -> Floats:
    """Return (theta, phi) of R weighted fits at once (R, 2), by Newton's method."""
    features_N2 = np.stack([np.ones_like(longer_N), longer_N], axis=1)
    coefficients_R2 = np.zeros((len(weights_RN), 2))
    for _ in range(_STEPS):
        predicted_RN = 1 / (1 + np.exp(-coefficients_R2 @ features_N2.T))
        gradient_R2 = (weights_RN * (outcomes_N - predicted_RN)) @ features_N2 - RIDGE * coefficients_R2
        curvature_RN = weights_RN * predicted_RN * (1 - predicted_RN)
        hessian_R22 = np.einsum("rn,ni,nj->rij", curvature_RN, features_N2, features_N2, optimize=True)
        step_R2 = np.linalg.solve(hessian_R22 + RIDGE * np.eye(2), gradient_R2[..., None])[..., 0]
        # Near separation a whole step can overshoot; a unit of log-odds per step cannot.
        coefficients_R2 += np.clip(step_R2, -1, 1)
        if np.abs(step_R2).max() < 1e-10:
            break
    return coefficients_R2
