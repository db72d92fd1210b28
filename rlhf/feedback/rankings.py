"""From rankings, which are the truth, to the pairs that are derived from them."""

from itertools import combinations

import polars as pl


def pairs(rankings: pl.DataFrame) -> pl.DataFrame:
    """Return every pair of differently ranked, different responses (table `preferences`).

    Ties and unranked responses give no pair (Ouyang et al. 2022, section 3.5, use all K-choose-2 pairs).
    """
    rows: dict[str, list[object]] = {name: [] for name in ("prompt_id", "prompt", "chosen", "rejected")}
    for row in rankings.iter_rows(named=True):
        ranked = [
            (rank, text)
            for rank, text in zip(row["ranks"], row["responses"], strict=True)
            if rank is not None
        ]
        for better, worse in combinations(sorted(ranked), 2):
            if better[0] == worse[0] or better[1] == worse[1]:
                continue
            rows["prompt_id"].append(row["prompt_id"])
            rows["prompt"].append(row["prompt"])
            rows["chosen"].append(better[1])
            rows["rejected"].append(worse[1])
    return pl.DataFrame(
        rows,
        schema={
            "prompt_id": pl.String,
            "prompt": rankings.schema["prompt"],
            "chosen": pl.String,
            "rejected": pl.String,
        },
    ).with_columns(pl.lit(None, pl.Float64).alias("margin"), pl.lit(1.0).alias("weight"))


def describe(rankings: pl.DataFrame, derived: pl.DataFrame) -> dict[str, float]:
    """Return how many rankings and pairs there are, and the share of response pairs that were tied."""
    sizes = rankings["ranks"].list.len()
    possible = float((sizes * (sizes - 1) // 2).sum())
    tied = sum(
        sum(left == right for left, right in combinations([rank for rank in ranks if rank is not None], 2))
        for ranks in rankings["ranks"].to_list()
    )
    return {
        "rankings": float(rankings.height),
        "pairs": float(derived.height),
        "ties": tied / possible if possible else 0.0,
    }
