"""How far raters agree beyond chance: Krippendorff's alpha (Krippendorff 2011) with a bootstrap interval."""

from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from rlhf.data.ledger import Ledger

_ROUNDS = 500
_MOST_VALUES = 60

Metric = Literal["nominal", "ordinal", "interval"]
Counts = npt.NDArray[np.float64]


def check_agreement(ledger: Ledger) -> None:
    """Measure the agreement where items have two or more raters."""
    if not ledger.ratings.height:
        return
    counts, values = tabulate(ledger.ratings)
    if not 1 <= values.size <= _MOST_VALUES or counts.shape[0] < 2:
        return
    metric: Metric = "interval"
    if ledger.kind == "rankings" or values.size <= 3:
        metric = "nominal"
    elif bool((values == values.round()).all()):
        metric = "ordinal"
    alpha, low, high = alpha_with_interval(counts, values, metric)
    ledger.statistics |= {
        "alpha": alpha,
        "alpha_low": low,
        "alpha_high": high,
        "items_rated_twice": float(counts.shape[0]),
    }
    message = (
        f"raters agree with alpha {alpha:.2f} [{low:.2f}, {high:.2f}] on {counts.shape[0]} items (0 is chance, 1 is "
        "perfect); a reward model cannot be right more often than they agree"
    )
    ledger.measure("low_agreement", 1 - alpha, message)


def tabulate(ratings: pl.DataFrame) -> tuple[Counts, npt.NDArray[np.float64]]:
    """Return how often each item with two or more ratings got each value, and the values."""
    given = ratings.drop_nulls("value").unique(["item", "rater"], keep="first", maintain_order=True)
    given = given.filter(pl.len().over("item") >= 2)
    values = np.sort(given["value"].unique().to_numpy())
    items = given["item"].rank("dense").to_numpy().astype(np.int64) - 1
    counts = np.zeros((int(items.max()) + 1 if items.size else 0, values.size))
    np.add.at(counts, (items, np.searchsorted(values, given["value"].to_numpy())), 1)
    return counts, values


def alpha(counts: Counts, values: npt.NDArray[np.float64], metric: Metric) -> float:
    """Return 1 - observed / expected disagreement; 1 where all ratings are the same."""
    sizes = counts.sum(axis=1)
    totals = counts.sum(axis=0)
    scale = values if metric != "ordinal" else totals.cumsum() - totals / 2
    different: Counts = np.subtract.outer(scale, scale) ** 2
    if metric == "nominal":
        different = (different > 0).astype(np.float64)
    within = np.einsum("iv,vw,iw->i", counts, different, counts) / (sizes - 1)
    number = totals.sum()
    expected = float(totals @ different @ totals) / (number - 1)
    return 1 - float(within.sum()) / expected if expected else 1.0


def alpha_with_interval(
    counts: Counts, values: npt.NDArray[np.float64], metric: Metric
) -> tuple[float, float, float]:
    """Return alpha with its 95% interval over items drawn with replacement."""
    random = np.random.default_rng(0)
    draws = (random.integers(0, len(counts), len(counts)) for _ in range(_ROUNDS))
    low, high = np.quantile([alpha(counts[drawn], values, metric) for drawn in draws], [0.025, 0.975])
    return alpha(counts, values, metric), float(low), float(high)
