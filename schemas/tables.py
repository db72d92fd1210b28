"""Canonical tables: what every stage may rely on once `validate` has passed (polars frames, checked by pandera).

The models can be used alone, on polars and pandas frames: `Preferences.validate(frame, lazy=True)` names every failing row.
A check whose expression is null would pass, so each check fills nulls with False.
"""

from typing import TYPE_CHECKING, Literal

import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData

if TYPE_CHECKING:
    from pandas import DataFrame as PandasFrame

MESSAGE = pl.Struct({"role": pl.String, "content": pl.String})
MESSAGES = pl.List(MESSAGE)
"""A conversation: list<struct<role, content>>, oldest turn first."""

SCHEMA_VERSION = 2
"""Changes when a table's columns or their meaning do."""

ROLES = ("system", "user", "assistant", "tool")

Kind = Literal[
    "corpus",
    "demonstrations",
    "prompts",
    "candidates",
    "rankings",
    "preferences",
    "rollouts",
    "samples",
    "feedback",
]

_CONVERSATION = {"inner": MESSAGE}


def _said(data: PolarsData) -> pl.LazyFrame:
    """Tell per row whether a text has anything but white space."""
    return data.lazyframe.select(
        (pl.col(data.key).str.strip_chars().str.len_bytes() > 0).fill_null(value=False)
    )


def _asks(data: PolarsData) -> pl.LazyFrame:
    """Tell per row whether a conversation has known roles and ends with the user or a tool."""
    known = pl.col(data.key).list.eval(pl.element().struct.field("role").is_in(ROLES)).list.all()
    last = pl.col(data.key).list.get(-1, null_on_oob=True).struct.field("role")
    return data.lazyframe.select((known & last.is_in(["user", "tool"])).fill_null(value=False))


class _Table(pa.DataFrameModel):
    class Config:
        strict = True
        ordered = True

    @classmethod
    def validate(  # type: ignore[override]  # pandas frames too
        cls,
        check_obj: "pl.DataFrame | pl.LazyFrame | PandasFrame",
        head: int | None = None,
        tail: int | None = None,
        sample: int | None = None,
        random_state: int | None = None,
        lazy: bool = False,
        inplace: bool = False,
    ) -> pl.DataFrame:
        """Return the frame if it is such a table; with `lazy`, name everything that is wrong with it."""
        frame = (
            check_obj if isinstance(check_obj, pl.DataFrame | pl.LazyFrame) else _from_pandas(check_obj, cls)
        )
        result = super().validate(frame.lazy().collect(), head, tail, sample, random_state, lazy, inplace)
        assert isinstance(result, pl.DataFrame), "a frame comes back as a frame"
        return result


def _from_pandas(frame: "PandasFrame", table: type[pa.DataFrameModel]) -> pl.DataFrame:
    """Return a pandas frame as a polars one; a column without any value gets the type that the table wants."""
    taken = pl.from_pandas(frame)
    wanted = table.to_schema().columns
    return taken.with_columns(
        pl.lit(None, dtype=wanted[name].dtype.type).alias(name)
        for name in taken.columns
        if name in wanted and taken.height and taken[name].null_count() == taken.height
    )


class _Prompted(_Table):
    prompt_id: pl.String = pa.Field(str_length={"min_value": 1})
    prompt: pl.List = pa.Field(dtype_kwargs=_CONVERSATION)

    # pandera forgets the `name` of an inherited check once the first of the heirs has been used; not a function's.
    @pa.check("prompt", ignore_na=False)
    def ends_with_the_user(cls, data: PolarsData) -> pl.LazyFrame:
        return _asks(data)


class Corpus(_Table):
    """Raw documents for pre-training."""

    text: pl.String

    @pa.check("text", name="not_blank", ignore_na=False)
    def _text_said(cls, data: PolarsData) -> pl.LazyFrame:
        return _said(data)


class Demonstrations(_Prompted):
    """A conversation and the response that a good assistant gave."""

    response: pl.String

    @pa.check("response", name="not_blank", ignore_na=False)
    def _response_said(cls, data: PolarsData) -> pl.LazyFrame:
        return _said(data)


class Prompts(_Prompted):
    """Conversations that wait for a response."""


class Candidates(_Prompted):
    """Several sampled responses per prompt, with their lengths in tokens and whether they ended by themselves."""

    responses: pl.List = pa.Field(dtype_kwargs={"inner": pl.String()})
    tokens: pl.List = pa.Field(dtype_kwargs={"inner": pl.Int64()})
    finished: pl.List = pa.Field(dtype_kwargs={"inner": pl.Boolean()})

    @pa.dataframe_check(name="one_entry_per_response", ignore_na=False)
    def _aligned(cls, data: PolarsData) -> pl.LazyFrame:
        size = pl.col("responses").list.len()
        same = (pl.col("tokens").list.len() == size) & (pl.col("finished").list.len() == size)
        return data.lazyframe.select(same.fill_null(value=False))


class Rankings(_Prompted):
    """One rater's ranks of the responses to a prompt: 1 is best, equal ranks are ties, null was not ranked.

    `finished` is False for a response that the sampler cut off.
    """

    responses: pl.List = pa.Field(dtype_kwargs={"inner": pl.String()})
    finished: pl.List = pa.Field(dtype_kwargs={"inner": pl.Boolean()})
    rater: pl.String
    ranks: pl.List = pa.Field(dtype_kwargs={"inner": pl.Int64()})

    @pa.dataframe_check(name="ranks_fit_the_responses", ignore_na=False)
    def _ranks_fit(cls, data: PolarsData) -> pl.LazyFrame:
        size = pl.col("responses").list.len()
        same = (pl.col("ranks").list.len() == size) & (pl.col("finished").list.len() == size)
        comparable = pl.col("ranks").list.drop_nulls().list.len() >= 2
        positive = pl.col("ranks").list.min() >= 1
        return data.lazyframe.select((same & comparable & positive).fill_null(value=False))


class Preferences(_Prompted):
    """Pairs of a chosen and a rejected response; `weight` counts votes or agreement, `margin` how much better.

    A response that the sampler cut off is not finished: to train on it as if it ended there would teach to stop.
    """

    chosen: pl.String
    rejected: pl.String
    chosen_finished: pl.Boolean
    rejected_finished: pl.Boolean
    margin: pl.Float64 = pa.Field(nullable=True)
    weight: pl.Float64 = pa.Field(gt=0)

    @pa.check("chosen", "rejected", name="not_blank", ignore_na=False)
    def _responses_said(cls, data: PolarsData) -> pl.LazyFrame:
        return _said(data)

    @pa.dataframe_check(name="responses_differ", ignore_na=False)
    def _responses_differ(cls, data: PolarsData) -> pl.LazyFrame:
        differ = pl.col("chosen").str.strip_chars() != pl.col("rejected").str.strip_chars()
        return data.lazyframe.select(differ.fill_null(value=False))


class Feedback(_Prompted):
    """One response and what somebody thought of it: good or bad (`label`), a number (`score`), or both."""

    response: pl.String
    rater: pl.String
    label: pl.Boolean = pa.Field(nullable=True)
    score: pl.Float64 = pa.Field(nullable=True)

    @pa.check("response", name="not_blank", ignore_na=False)
    def _response_said(cls, data: PolarsData) -> pl.LazyFrame:
        return _said(data)

    @pa.dataframe_check(name="judged", ignore_na=False)
    def _judged(cls, data: PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("label").is_not_null() | pl.col("score").is_not_null())


class Samples(_Prompted):
    """One policy's responses with tokens, score (normalised reward) and KL from the reference (nats, summed).

    `logprob` is the policy's own log-probability of the response (nats, summed); `score` is null without a reward model.
    `pieces` are the texts of the response's tokens and `piece_kl` the part of the KL that each makes up; both are empty for the
    reference itself, and beyond the rows that a report shows. `gold` (hidden utility), `right` and `rude` are what the judge saw; null where no world knows the truth.
    """

    response: pl.String
    tokens: pl.Int64 = pa.Field(ge=0)
    finished: pl.Boolean
    logprob: pl.Float64
    score: pl.Float64 = pa.Field(nullable=True)
    kl: pl.Float64
    pieces: pl.List = pa.Field(dtype_kwargs={"inner": pl.String})
    piece_kl: pl.List = pa.Field(dtype_kwargs={"inner": pl.Float64})
    gold: pl.Float64 = pa.Field(nullable=True)
    right: pl.Boolean = pa.Field(nullable=True)
    rude: pl.Boolean = pa.Field(nullable=True)


class Rollouts(_Table):
    """What an online aligner sampled: score (normalised, before the penalty) and KL (nats, summed) per response."""

    iteration: pl.Int64 = pa.Field(ge=0)
    prompt_id: pl.String
    prompt: pl.List = pa.Field(dtype_kwargs=_CONVERSATION)
    response: pl.String
    score: pl.Float64
    kl: pl.Float64
    finished: pl.Boolean


TABLES: dict[Kind, type[pa.DataFrameModel]] = {
    "corpus": Corpus,
    "demonstrations": Demonstrations,
    "prompts": Prompts,
    "candidates": Candidates,
    "rankings": Rankings,
    "preferences": Preferences,
    "rollouts": Rollouts,
    "samples": Samples,
    "feedback": Feedback,
}


def polars_schema(kind: Kind) -> pl.Schema:
    """Return the column names and polars types of a table."""
    columns = TABLES[kind].to_schema().columns
    return pl.Schema({name: column.dtype.type for name, column in columns.items()})
