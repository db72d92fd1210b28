"""From rankings, which are the truth, to the pairs that are derived from them."""

from itertools import combinations

import polars as pl

from schemas.tables import polars_schema


def pairs(rankings: pl.DataFrame) -> pl.DataFrame:
    """Return every pair of differently ranked, different responses (table `preferences`).

    Ties and unranked responses give no pair (Ouyang et al. 2022, section 3.5, use all K-choose-2 pairs).
    """
    rows: list[dict[str, object]] = []
    for row in rankings.iter_rows(named=True):
        ranked = [
            (rank, text, finished)
            for rank, text, finished in zip(row["ranks"], row["responses"], row["finished"], strict=True)
            if rank is not None
        ]
        for better, worse in combinations(sorted(ranked), 2):
            if better[0] == worse[0] or better[1] == worse[1]:
                continue
            rows.append(
                {
                    "prompt_id": row["prompt_id"],
                    "prompt": row["prompt"],
                    "chosen": better[1],
                    "rejected": worse[1],
                    "chosen_finished": better[2],
                    "rejected_finished": worse[2],
                    "margin": None,
                    "weight": 1.0,
                }
            )
    return pl.DataFrame(rows, schema=polars_schema("preferences"))


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
