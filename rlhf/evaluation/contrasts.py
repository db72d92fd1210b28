"""Several methods on the same units: which of them can the data tell apart?

Shapes: M methods, N units. A unit is whatever all methods share: a prompt, or a seed with its mean over prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import stats

from schemas.record import Interval

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One method less another, unit by unit."""

    first: int
    """Row of the method that comes first; the second is subtracted from it."""
    second: int
    difference: Interval
    """All intervals of a comparison hold together with the confidence that was asked for (Bonferroni)."""
    p_value: float
    """Adjusted for the number of pairs (Holm 1979)."""
    apart: bool
    """Whether the data tell the two apart."""


def contrasts(values_MN: Values, *, confidence: float) -> list[Contrast]:
    """Compare every two methods by the paired t-test over the units, and correct for the number of pairs.

    The chance that any two equal methods are called apart is at most 1 - confidence, however many others differ.
    With hundreds of units their distribution hardly matters; with a few it must be near a normal one.
    Two methods that agree on every unit are equal. A difference that is the same on every unit has no spread to judge it by:
    the sign test does, which says nothing with a handful of units.
    """
    if values_MN.ndim != 2 or values_MN.shape[0] < 2 or values_MN.shape[1] < 2:
        raise ValueError(f"values of shape {values_MN.shape}; wanted at least 2 methods on at least 2 units")
    pairs = list(combinations(range(len(values_MN)), 2))
    differences = np.stack([values_MN[first] - values_MN[second] for first, second in pairs])
    count = differences.shape[1]
    means = differences.mean(axis=1)
    errors = differences.std(axis=1, ddof=1) / np.sqrt(count)
    p_values = [_p_value(mean, error, count - 1) for mean, error in zip(means, errors, strict=True)]
    adjusted = holm(p_values)
    critical = float(stats.t.ppf(1 - (1 - confidence) / (2 * len(pairs)), count - 1))
    return [
        Contrast(
            first=first,
            second=second,
            difference=Interval(
                value=float(mean), low=float(mean - critical * error), high=float(mean + critical * error)
            ),
            p_value=p_value,
            apart=p_value < 1 - confidence,
        )
        for (first, second), mean, error, p_value in zip(pairs, means, errors, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the adjusted p-values of Holm's step-down procedure (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def mean_intervals(values_MN: Values, *, confidence: float) -> list[Interval]:
    """Return each method's mean over the units with its own t interval, not corrected for their number."""
    count = values_MN.shape[1]
    critical = float(stats.t.ppf((1 + confidence) / 2, count - 1))
    found = []
    for values_N in values_MN:
        mean, half = float(values_N.mean()), critical * float(values_N.std(ddof=1)) / float(np.sqrt(count))
        found.append(Interval(value=mean, low=mean - half, high=mean + half))
    return found


def letters(found: Sequence[Contrast]) -> list[str]:
    """Return letters for the methods, in their order: two that share a letter are not told apart.

    Each letter is a largest set of methods no two of which are apart (the compact letter display of Piepho 2004).
    """
    apart = {frozenset((one.first, one.second)) for one in found if one.apart}
    rows = sorted({row for one in found for row in (one.first, one.second)})
    groups: list[set[int]] = []
    for size in range(len(rows), 0, -1):
        for group in combinations(rows, size):
            alike = not any(frozenset(pair) in apart for pair in combinations(group, 2))
            if alike and not any(set(group) <= larger for larger in groups):
                groups.append(set(group))
    groups.sort(key=sorted)
    return [
        "".join(chr(ord("a") + number) for number, group in enumerate(groups) if row in group) for row in rows
    ]


def _p_value(mean: float, error: float, freedom: int) -> float:
    if error <= 1e-9 * abs(mean):  # none, up to rounding
        return 1.0 if mean == 0.0 else 0.5**freedom
    return float(2 * stats.t.sf(abs(mean / error), freedom))
