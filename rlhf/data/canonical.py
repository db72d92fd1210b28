"""From canonical rows to a table, and to the few columns of it that the rules over the whole file need."""

from collections.abc import Iterable
from itertools import combinations

import polars as pl
import pyarrow as pa

from rlhf.data.layouts_pairs import Canonical
from rlhf.data.records import Row
from rlhf.data.rules import repaired
from rlhf.data.splits import prompt_id
from schemas.tables import Kind, polars_schema

PLACE: dict[str, type[pl.DataType]] = {
    "_row": pl.Int64,
    "_line": pl.Int64,
    "_sha1": pl.Binary,
    "_id": pl.UInt64,
    "_first_wins": pl.Boolean,
}
"""Where the record of a row stands, its digest, the hash of its id, and whether the first of two responses won."""

RESPONSES: dict[Kind, tuple[str, ...]] = {
    "corpus": ("text",),
    "demonstrations": ("response",),
    "prompts": (),
    "preferences": ("chosen", "rejected"),
    "rankings": (),
    "feedback": ("response",),
}
"""Text columns of each table beside the prompt."""

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_ARROW = {
    pl.String(): pa.string(),
    pl.Float64(): pa.float64(),
    pl.Int64(): pa.int64(),
    pl.Boolean(): pa.bool_(),
    pl.List(pl.String()): pa.list_(pa.string()),
    pl.List(pl.Int64()): pa.list_(pa.int64()),
    pl.List(pl.Boolean()): pa.list_(pa.bool_()),
}
_REFUSALS = (
    "i cannot", "i can't", "i can not", "i'm sorry", "i am sorry", "i apologize", "as an ai", "i won't",
    "i'm not able", "i am not able", "i'm unable", "i am unable", "i don't think i can", "i'd rather not",
)  # fmt: skip


def table_of(kind: Kind, rows: list[tuple[Row, list[Canonical]]]) -> pl.DataFrame:
    """Return the canonical rows of good records as a table, with the columns of `PLACE`."""
    schema = polars_schema(kind)
    flat = [(row, values) for row, canonical in rows for values in canonical]
    columns = {name: [values.get(name) for _, values in flat] for name in schema if name != "prompt_id"}
    if "prompt_id" in schema:
        columns["prompt_id"] = [prompt_id(values["prompt"]) for _, values in flat]  # type: ignore[arg-type]  # readers return conversations
    # polars reads nested Python lists ten times slower than Arrow does.
    arrays = {
        name: pa.array(columns[name], type=_MESSAGES if name == "prompt" else _ARROW[dtype])
        for name, dtype in schema.items()
    }
    table = pl.DataFrame(pl.from_arrow(pa.table(arrays)), schema_overrides=schema)
    names = [row.value.get("id", row.value.get("uid")) for row, _ in flat]
    ids = pl.Series("_id", [None if name is None else str(name) for name in names], dtype=pl.String)
    digests = {row.row: row.sha1() for row, _ in rows}
    return table.with_columns(
        pl.Series("_row", [row.row for row, _ in flat], dtype=pl.Int64),
        pl.Series("_line", [row.line for row, _ in flat], dtype=pl.Int64),
        pl.Series("_sha1", [digests[row.row] for row, _ in flat], dtype=pl.Binary),
        ids.hash(seed=1).zip_with(ids.is_not_null(), pl.Series([None], dtype=pl.UInt64)),
        pl.Series("_first_wins", [values.get("_first_wins") for _, values in flat], dtype=pl.Boolean),
    )


def index_of(kind: Kind, table: pl.DataFrame) -> pl.DataFrame:
    """Return what the rules over the whole file need of a table: numbers instead of texts, some 100 bytes per row."""
    responses = RESPONSES[kind]
    columns: list[pl.Expr] = []
    if "prompt_id" in table.columns:
        columns.append(pl.col("prompt_id").hash(seed=2).alias("_prompt"))
    for name in responses:
        stripped = pl.col(name).str.strip_chars()
        columns += [
            stripped.hash(seed=3).alias(f"_{name}"),
            pl.col(name).str.len_chars().alias(f"_{name}_length"),
            pl.col(name).str.head(80).str.contains_any(list(_REFUSALS), ascii_case_insensitive=True)
            .alias(f"_{name}_refuses"),
        ]  # fmt: skip
    if kind == "rankings":
        ranks = pl.col("ranks").cast(pl.List(pl.String)).list.eval(pl.element().fill_null("-")).list.join(",")
        columns.append(pl.col("responses").list.join("\x1f").hash(seed=3).alias("_responses"))
        columns.append(pl.concat_str("rater", ranks, separator=" ").hash(seed=3).alias("_given"))
        columns.append((pl.col("ranks").list.drop_nulls().list.n_unique() == 1).alias("_tie"))
    if kind == "feedback":
        given = pl.concat_str(
            "rater", pl.col("label").cast(pl.String).fill_null("-"),
            pl.col("score").cast(pl.String).fill_null("-"), separator=" ",
        )  # fmt: skip
        columns += [given.hash(seed=3).alias("_given"), pl.col("label"), pl.col("score")]
    if kind == "preferences":
        columns.append(pl.col("weight"))
    return table.select(*PLACE, *columns)


def same(kind: Kind) -> tuple[str, ...]:
    """Return the columns of an index that make two rows the same."""
    prompt = () if kind == "corpus" else ("_prompt",)
    given = ("_responses", "_given") if kind == "rankings" else ("_given",) if kind == "feedback" else ()
    return (*prompt, *(f"_{name}" for name in RESPONSES[kind]), *given)


def ratings_of(kind: Kind, table: pl.DataFrame) -> pl.DataFrame:
    """Return what each rater said of each item: a response's score, or which of two responses is better."""
    rows: list[tuple[str, str, float]] = []
    if kind == "feedback":
        values = table.select(
            "prompt_id", "response", "rater", pl.col("score").fill_null(pl.col("label").cast(pl.Float64))
        )
        rows = [(f"{ask}{text}", who, value) for ask, text, who, value in values.iter_rows()]
    if kind == "rankings":
        for ask, texts, who, ranks in table.select("prompt_id", "responses", "rater", "ranks").iter_rows():
            ranked = sorted((text, rank) for text, rank in zip(texts, ranks, strict=True) if rank is not None)
            for (left, one), (right, two) in combinations(ranked, 2):
                rows.append((f"{ask}{left}\x1f{right}", who, float((one < two) - (two < one))))
    schema = {"item": pl.String, "rater": pl.String, "value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col("item").hash(seed=4))


def whole_texts(kind: Kind, table: pl.DataFrame) -> pl.Series:
    """Return what makes two rows alike: the prompt with the chosen or only response, or with all responses."""
    parts = [pl.col(name) for name in RESPONSES[kind][:1]]
    if "prompt" in table.columns:
        said = pl.element().struct.field("content")
        parts.insert(0, pl.col("prompt").list.eval(said).list.join("\n"))
    if kind == "rankings":
        parts.append(pl.col("responses").list.join("\n"))
    return table.select(pl.concat_str(parts, separator="\n").alias("text")).to_series()


def repaired_table(kind: Kind, table: pl.DataFrame, kinds: Iterable[str]) -> pl.DataFrame:
    """Return a table whose texts have been rewritten, see `rules.REPAIRS`."""
    kinds = list(kinds)
    table = table.with_columns(repaired(pl.col(name), kinds) for name in RESPONSES[kind])
    if kind == "rankings":
        table = table.with_columns(pl.col("responses").list.eval(repaired(pl.element(), kinds)))
    if "prompt" in table.columns:
        role, content = pl.element().struct.field("role"), pl.element().struct.field("content")
        turn = pl.struct(role.alias("role"), repaired(content, kinds).alias("content"))
        table = table.with_columns(pl.col("prompt").list.eval(turn))
        ids = [prompt_id(turns) for turns in table["prompt"].to_list()]
        table = table.with_columns(pl.Series("prompt_id", ids, dtype=pl.String))
    return table
