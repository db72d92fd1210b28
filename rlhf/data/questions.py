"""What a prompt asks first: the part of it by which prompts are compared across tables."""

import polars as pl


def first_questions(table: pl.DataFrame) -> pl.Series:
    """Return the first user turn of each prompt."""
    turns = pl.element().struct.field("content").filter(pl.element().struct.field("role") == "user")
    first = pl.col("prompt").list.eval(turns.first()).list.first().fill_null("")
    return table.select(first.alias("question")).to_series()
