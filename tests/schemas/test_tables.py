"""The tables' contracts, used alone on frames of one's own."""

import pandas as pd
import pandera.errors
import polars as pl
import pytest

from schemas.tables import TABLES, Preferences, Prompts, Rankings, polars_schema

ASK = [{"role": "user", "content": "When do you open?"}]


def row(**fields):
    good = {
        "prompt_id": "a", "prompt": ASK, "chosen": "At nine.", "rejected": "No idea.", "chosen_finished": True,
        "rejected_finished": True, "margin": None, "weight": 1.0,
    }  # fmt: skip
    return {**good, **fields}


def polars_frame(rows):
    return pl.DataFrame(rows, schema=polars_schema("preferences"))


@pytest.mark.parametrize("make", [polars_frame, pd.DataFrame], ids=["polars", "pandas"])
def test_a_good_frame_comes_back_as_the_canonical_table(make):
    table = Preferences.validate(make([row(), row(prompt_id="b", margin=0.5)]), lazy=True)
    assert table.schema == polars_schema("preferences")
    assert table.height == 2


@pytest.mark.parametrize("make", [polars_frame, pd.DataFrame], ids=["polars", "pandas"])
def test_every_failing_row_is_named(make):
    rows = [
        row(),
        row(chosen=" "),
        row(rejected="At nine. "),
        row(weight=0.0),
        row(prompt=[*ASK, {"role": "assistant", "content": "x"}]),
    ]
    with pytest.raises(pandera.errors.SchemaErrors) as raised:
        Preferences.validate(make(rows), lazy=True)
    cases = set(raised.value.failure_cases.select("check", "index").iter_rows())
    assert {("not_blank", 1), ("responses_differ", 2), ("ends_with_the_user", 4)} <= cases
    assert {index for _, index in cases} == {1, 2, 3, 4}


def test_nulls_do_not_pass():
    with pytest.raises(pandera.errors.SchemaErrors):
        Preferences.validate(polars_frame([row(chosen=None)]), lazy=True)


def test_a_missing_or_foreign_column_is_named():
    frame = pl.DataFrame({"prompt_id": ["a"], "question": ["x"]})
    with pytest.raises(pandera.errors.SchemaErrors) as raised:
        Prompts.validate(frame, lazy=True)
    assert "question" in str(raised.value)


def test_ranks_fit_their_responses():
    schema = polars_schema("rankings")
    good = {
        "prompt_id": "a",
        "prompt": ASK,
        "responses": ["x", "y"],
        "finished": [True, True],
        "rater": "r",
        "ranks": [1, 1],
    }
    assert Rankings.validate(pl.DataFrame([good], schema=schema), lazy=True).height == 1
    for ranks in ([1], [0, 1], [1, None]):
        with pytest.raises(pandera.errors.SchemaErrors):
            Rankings.validate(pl.DataFrame([{**good, "ranks": ranks}], schema=schema), lazy=True)


@pytest.mark.parametrize("kind", TABLES)
def test_an_empty_table_of_each_kind_is_one(kind):
    assert TABLES[kind].validate(pl.DataFrame(schema=polars_schema(kind)), lazy=True).height == 0


def test_an_inherited_check_has_its_name_in_every_table():
    for kind in ("demonstrations", "prompts", "candidates", "rankings", "preferences", "feedback", "samples"):
        checks = TABLES[kind].to_schema().columns["prompt"].checks
        assert "ends_with_the_user" in [check.name for check in checks], kind
