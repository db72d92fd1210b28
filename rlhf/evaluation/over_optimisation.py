"""Scaling laws of over-optimisation (Gao et al. 2023): reward against d = sqrt(KL) from the reference.

Best-of-n: R(d) = d (alpha - beta d), eq. 1; reinforcement learning: R(d) = d (alpha - beta log d), eq. 2. Both are linear in
their coefficients. Where the paper subtracts the reference's reward, which here is noisy, it is fitted as a third one.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rlhf.evaluation.intervals import percentiles, resampled
from schemas.frontier import Form, FrontierFit, FrontierPoint, MethodFrontier

Floats = npt.NDArray[np.float64]

START, ALPHA, BETA = range(3)


def best_of_n(scores_PK: Floats, values_PK: Floats, sizes: Sequence[int]) -> Floats:
    """Return, by prompt and n, the expected value of the best by score of n responses (P, len(sizes)).

    All n-subsets of the K responses count (Nakano et al. 2021, appendix I), so that no draw adds noise.
    """
    number = scores_PK.shape[1]
    order_PK = np.argsort(scores_PK, axis=1, kind="stable")
    sorted_PK = np.take_along_axis(values_PK, order_PK, axis=1)
    return sorted_PK @ np.stack([_best_weights(number, n) for n in sizes]).T


def _best_weights(number: int, n: int) -> Floats:
    """Return the probability of each rank, lowest first, to be the best of n drawn without replacement."""
    if not 1 <= n <= number:
        raise ValueError(f"best of {n} among {number} responses; wanted 1 <= n <= {number}")
    chances = [math.comb(rank, n - 1) / math.comb(number, n) for rank in range(number)]
    return np.array(chances)


def best_of_n_kl(n: int) -> float:
    """Return the KL of best-of-n from the policy that it draws from, in nats: log n - (n - 1) / n."""
    return math.log(n) - (n - 1) / n


def fit(form: Form, distances_N: Floats, values_RN: Floats) -> Floats:
    """Return (start, alpha, beta) of each row of values by least squares (R, 3)."""
    return np.linalg.lstsq(_features(form, distances_N), values_RN.T, rcond=None)[0].T.astype(np.float64)


def predict(form: Form, coefficients: Sequence[float], distances_N: Floats) -> Floats:
    """Return the fitted curve (N,)."""
    curve_N: Floats = _features(form, distances_N) @ np.asarray(coefficients)
    return curve_N


def peak_kl(form: Form, coefficients_R3: Floats) -> Floats:
    """Return the KL of each curve's highest point (R,); infinite where it never turns, 0 where it only falls."""
    alpha_R, beta_R = coefficients_R3[:, ALPHA], coefficients_R3[:, BETA]
    turns_R = beta_R > 0
    safe_R = np.where(turns_R, beta_R, 1.0)
    with np.errstate(over="ignore"):
        # dR/dd = alpha - 2 beta d = 0, and alpha - beta (log d + 1) = 0.
        d_R = alpha_R / (2 * safe_R) if form == "best_of_n" else np.exp(alpha_R / safe_R - 1)
        return np.where(turns_R, np.maximum(d_R, 0.0) ** 2, np.inf)


def _features(form: Form, distances_N: Floats) -> Floats:
    bent_N = distances_N**2 if form == "best_of_n" else _d_log_d(distances_N)
    return np.stack([np.ones_like(distances_N), distances_N, -bent_N], axis=1)


def _d_log_d(distances_N: Floats) -> Floats:
    return distances_N * np.log(np.where(distances_N > 0, distances_N, 1.0))


def describe_fit(
    form: Form, distances_N: Floats, values_N: Floats, resampled_R3: Floats, confidence: float
) -> FrontierFit:
    """Return the fit of the values with the intervals of its resamples."""
    found = fit(form, distances_N, values_N[None])
    start, alpha, beta = (
        percentiles(float(found[0, place]), resampled_R3[:, place], confidence)
        for place in (START, ALPHA, BETA)
    )
    farthest = float(distances_N.max()) ** 2
    peak = float(peak_kl(form, found)[0])
    residuals_N = values_N - predict(form, found[0].tolist(), distances_N)
    return FrontierFit(
        form=form,
        start=start,
        alpha=alpha,
        beta=beta,
        residual=float(np.sqrt(np.mean(residuals_N**2))),
        # Far outside of what was measured the position of a peak means nothing, so resamples stop at ten times that.
        peak_kl=percentiles(peak, np.minimum(peak_kl(form, resampled_R3), 10 * farthest), confidence)
        if peak <= 10 * farthest
        else None,
    )


def frontier_of_policies(
    method: str, points: Sequence[FrontierPoint], *, confidence: float, samples: int, seed: int
) -> MethodFrontier:
    """Fit the curves of a policy that was sampled while it learnt; the resamples are of its iterations."""
    distances, scores, golds = (
        np.array(values)
        for values in zip(*((math.sqrt(max(0.0, p.kl)), p.score, p.gold) for p in points), strict=True)
    )
    fits = []
    for values in (scores, golds):
        coefficients = [
            fit("rl", distances[rows], values[rows][None])[0]
            for block in resampled(len(points), samples, seed)
            for rows in block
        ]
        fits.append(describe_fit("rl", distances, values, np.stack(coefficients), confidence))
    return _method(method, points, fits[0], fits[1])


def frontier_of_best(
    scores_PK: Floats, golds_PK: Floats, sizes: Sequence[int], *, confidence: float, samples: int, seed: int
) -> MethodFrontier:
    """Fit the curves of best-of-n; the resamples are of the prompts, which all n share."""
    kls = [best_of_n_kl(n) for n in sizes]
    distances = np.sqrt(kls)
    by_prompt = [best_of_n(scores_PK, values_PK, sizes) for values_PK in (scores_PK, golds_PK)]
    fits = []
    for means_PN in by_prompt:
        resamples = np.concatenate(
            [
                fit("best_of_n", distances, means_PN[rows].mean(axis=1))
                for rows in resampled(len(means_PN), samples, seed)
            ]
        )
        fits.append(describe_fit("best_of_n", distances, means_PN.mean(axis=0), resamples, confidence))
    points = [
        FrontierPoint(label=f"best of {n}", kl=kl, score=float(score), gold=float(gold))
        for n, kl, score, gold in zip(
            sizes, kls, by_prompt[0].mean(axis=0), by_prompt[1].mean(axis=0), strict=True
        )
    ]
    return _method("best-of-n", points, fits[0], fits[1])


def _method(
    method: str, points: Sequence[FrontierPoint], score_fit: FrontierFit, gold_fit: FrontierFit
) -> MethodFrontier:
    farthest = max(point.kl for point in points)
    peak = gold_fit.peak_kl
    turned = peak is not None and peak.value <= farthest and gold_fit.beta.low > 0
    return MethodFrontier(
        method=method,
        points=tuple(points),
        score_fit=score_fit,
        gold_fit=gold_fit,
        budget_kl=peak.value if turned and peak is not None else farthest,
        turned=turned,
    )
