"""Rows that repeat or contradict each other, and prompts that other files hold too."""

from typing import Literal

import polars as pl

TEXTS = {
    "corpus": ("text",),
    "demonstrations": ("prompt_id", "response"),
    "prompts": ("prompt_id",),
    "preferences": ("prompt_id", "chosen", "rejected"),
    "rankings": ("prompt_id", "responses", "rater", "ranks"),
    "feedback": ("prompt_id", "response", "rater", "label", "score"),
}
"""The columns that make two rows the same."""


def resolve_repeats(
    frame: pl.DataFrame, kind: str, votes: Literal["drop", "count"]
) -> tuple[pl.DataFrame, list[int], list[int]]:
    """Return the frame without repeats and contradictions, the repeated rows and the contradicting rows.

    The side of a pair with more votes stays; its weight becomes its net share of the votes, or its net number of
    votes with `votes="count"`. Sides with equal votes go both.
    """
    contradicting: list[int] = []
    if kind == "preferences":
        frame = _count_votes(frame, votes)
        contradicting = frame.filter(pl.col("_net") <= 0)["_row"].to_list()
        frame = frame.filter(pl.col("_net") > 0).drop("_net")
    first = pl.struct(TEXTS[kind]).is_first_distinct()
    repeated = frame.filter(~first)["_row"].to_list()
    return frame.filter(first), repeated, contradicting


def _count_votes(frame: pl.DataFrame, votes: Literal["drop", "count"]) -> pl.DataFrame:
    pair = ["prompt_id", "_low", "_high"]
    frame = frame.with_columns(
        pl.min_horizontal("chosen", "rejected").alias("_low"),
        pl.max_horizontal("chosen", "rejected").alias("_high"),
    )
    both = pl.len().over(pair)
    wins = pl.len().over([*pair, "chosen"])
    net = 2 * wins.cast(pl.Int64) - both.cast(pl.Int64)
    weight = net if votes == "count" else net / both
    return frame.with_columns(net.alias("_net"), weight.cast(pl.Float64).alias("weight")).drop(
        "_low", "_high"
    )


def near_duplicates(frame: pl.DataFrame, kind: str) -> list[int]:
    """Return the rows that repeat an earlier one up to case, punctuation and space."""
    columns = [
        column for column in TEXTS[kind] if column != "prompt_id" and frame.schema[column] == pl.String
    ]
    columns = [column for column in columns if column != "rater"]
    if "prompt" in frame.columns:
        frame = frame.with_columns(first_question(frame))
        columns.append("_question")
    plain = [_folded(pl.col(column)) for column in columns]
    return frame.filter(~pl.struct(plain).is_first_distinct())["_row"].to_list() if plain else []


def repeated_ids(frame: pl.DataFrame) -> list[int]:
    """Return the rows whose id an earlier, different row has already."""
    return frame.filter(pl.col("_id").is_not_null() & ~pl.col("_id").is_first_distinct())["_row"].to_list()


def first_question(frame: pl.DataFrame) -> pl.Series:
    """Return the first user turn of each prompt."""
    said = pl.element().struct.field("content").filter(pl.element().struct.field("role") == "user").first()
    return frame.select(
        pl.col("prompt").list.eval(said).list.first().fill_null("").alias("_question")
    ).to_series()


def leaked(frame: pl.DataFrame, questions: pl.Series) -> list[int]:
    """Return the rows whose first user turn, up to case, punctuation and space, is among the given ones."""
    known = questions.to_frame("_question").select(_folded(pl.col("_question"))).to_series().unique()
    here = frame.with_columns(first_question(frame)).with_columns(_folded(pl.col("_question")))
    return here.filter(pl.col("_question").is_in(known.implode()))["_row"].to_list()


def _folded(text: pl.Expr) -> pl.Expr:
    return text.str.to_lowercase().str.replace_all(r"[\W_]+", " ").str.strip_chars()
