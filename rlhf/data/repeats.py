"""Rows that repeat or contradict each other."""

from typing import Literal

import polars as pl

from rlhf.data.canonical import same
from rlhf.data.ledger import Ledger


def resolve_repeats(ledger: Ledger, votes: Literal["drop", "count"]) -> None:
    """Keep one row of each kind of repeats, and of pairs that contradict each other the side with more votes.

    The weight of a pair becomes its net share of the votes, or its net number of votes with `votes="count"`.
    """
    if ledger.kind == "preferences":
        ledger.index = ledger.index.with_columns(_net_votes(votes))
        message = "the same pair occurs with the opposite label, and not less often"
        ledger.set_aside(ledger.index["_net"] <= 0, "contradictory_pair", "chosen/rejected", message)
        _settle(ledger)
    first = ledger.index.select(pl.struct(same(ledger.kind)).is_first_distinct()).to_series()
    ledger.drop(~first, "exact_duplicate", "an earlier row says the same; the first one is kept")
    records = ledger.index.unique("_row", keep="first", maintain_order=True)
    again = records["_id"].is_not_null() & ~records["_id"].is_first_distinct()
    ledger.note(records.filter(again), "duplicate_id", "id", "an earlier, different row has the same id")


def note_near_duplicates(ledger: Ledger) -> None:
    """Name the rows that are similar to an earlier one; several raters or pairs of one item are not meant."""
    if ledger.signatures is None:
        return
    from rlhf.data.near import similar_to_earlier

    item = [name for name in same(ledger.kind) if name not in {"_given", "_rejected"}]
    rows = ledger.index.filter(pl.struct(item).is_first_distinct()) if item else ledger.index
    match = similar_to_earlier(ledger.signatures[rows["_at"].to_numpy()])
    message = "an earlier row is nearly the same"
    ledger.note(rows.filter(pl.Series(match >= 0)), "near_duplicate", "", message)


def _net_votes(votes: Literal["drop", "count"]) -> list[pl.Expr]:
    pair = ["_prompt", pl.min_horizontal("_chosen", "_rejected"), pl.max_horizontal("_chosen", "_rejected")]
    both = pl.len().over(pair)
    net = 2 * pl.len().over([*pair, "_chosen"]).cast(pl.Int64) - both.cast(pl.Int64)
    weight = net if votes == "count" else net / both
    alone = pl.col("weight") * (both == 1)  # a table that comes back keeps its weights
    return [
        net.alias("_net"),
        pl.when(both == 1).then(alone).otherwise(weight).cast(pl.Float64).alias("weight"),
    ]


def _settle(ledger: Ledger) -> None:
    """Give rows that were let through although they contradict others a weight that the table allows."""
    ledger.index = ledger.index.with_columns(pl.col("weight").abs().clip(lower_bound=1e-6)).drop("_net")
