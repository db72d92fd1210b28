"""Every format in both directions: what is written and read again is the same, and so are the pairs."""

import json

import polars as pl
import pytest

from rlhf.feedback import batches, collected, exports, imports
from rlhf.feedback.rankings import pairs
from schemas.errors import DataRejected
from schemas.tables import TABLES, polars_schema

TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": 'Hi,\r\n"you"?'},
    {"role": "assistant", "content": "Yes"},
    {"role": "user", "content": "=1+1, ünïcode \U0001f600"},
]


def table():
    first = {
        "prompt_id": "p1", "prompt": TURNS, "responses": ["=cmd()", "'quoted", "new\nline, and \"quotes\"", "d"],
        "finished": [True, False, True, True],
    }  # fmt: skip
    second = {**first, "prompt_id": "p2", "responses": ["+", "b"], "finished": [True, True]}
    rows = [
        {**first, "rater": "ann", "ranks": [2, 1, 1, None]},
        {**first, "rater": "bob", "ranks": [1, 2, 3, 4]},
        {**second, "rater": "@ann", "ranks": [2, 1]},
    ]
    return TABLES["rankings"].validate(pl.DataFrame(rows, schema=polars_schema("rankings")))


@pytest.mark.parametrize("name", ["jsonl", "csv", "label-studio", "argilla"])
def test_rankings_come_back_as_they_were(name):
    assert imports.read(exports.FORMATS[name].write(table()), name).equals(table())


def test_trl_keeps_the_pairs_and_reads_as_rankings_of_two():
    text = exports.FORMATS["trl"].write(table())
    columns = ["prompt_id", "prompt", "chosen", "rejected"]
    assert pairs(imports.read(text, "trl")).select(columns).equals(pairs(table()).select(columns))
    first = json.loads(text.splitlines()[0])
    assert set(first) >= {"prompt", "chosen", "rejected"}
    assert first["chosen"][0]["role"] == "assistant"


def test_pairwise_tasks_keep_every_rater_s_votes_but_ties():
    found = imports.read(exports.FORMATS["label-studio-pairwise"].write(table()), "label-studio-pairwise")
    votes = [
        (row["prompt_id"], row["rater"], dict(zip(row["responses"], row["ranks"], strict=True)))
        for row in found.iter_rows(named=True)
    ]
    a, b, c, d = table()["responses"][0].to_list()
    # ann ranked 2, 1, 1, - : her tie and what she left out are no votes; bob ranked all six pairs.
    assert sorted(map(str, votes)) == sorted(
        map(
            str,
            [
                ("p1", "ann", {a: 2, b: 1}),
                ("p1", "bob", {a: 1, b: 2}),
                ("p1", "ann", {a: 2, c: 1}),
                *(
                    ("p1", "bob", {left: 1, right: 2})
                    for left, right in ((a, c), (a, d), (b, c), (b, d), (c, d))
                ),
                ("p2", "@ann", {"+": 2, "b": 1}),
            ],
        )
    )
    assert found.filter(pl.col("responses") == [a, b])["finished"].to_list() == [[True, False]] * 2


def test_rankings_of_two_come_back_from_pairwise_tasks_as_they_were():
    two = table().filter(pl.col("responses").list.len() == 2)
    text = exports.FORMATS["label-studio-pairwise"].write(two)
    assert imports.read(text, "label-studio-pairwise").equals(two)


def test_no_cell_of_the_csv_file_begins_like_a_formula():
    lines = exports.FORMATS["csv"].write(table())
    import csv
    import io

    assert not [cell for row in csv.reader(io.StringIO(lines)) for cell in row if cell[:1] in tuple("=+-@")]


def test_label_studio_s_own_rankings_and_pairs_are_read():
    tasks = [
        {
            "data": {"prompt": "Hi?", "items": [{"id": "a", "body": "A"}, {"id": "b", "body": "B"}, {"id": "c", "body": "C"}]},
            "annotations": [
                {"completed_by": {"email": "ann@x"}, "result": [{"type": "ranker", "value": {"ranker": {"rank": ["c", "a"]}}}]}
            ],
        },
        {
            "data": {"prompt": "Hi?", "text1": "A", "text2": "B"},
            "annotations": [{"completed_by": 7, "result": [{"type": "pairwise", "value": {"selected": "right"}}]}],
        },
    ]  # fmt: skip
    found = imports.read(json.dumps(tasks), "label-studio")
    assert found["ranks"].to_list() == [[2, None, 1], [2, 1]]
    assert found["rater"].to_list() == ["ann@x", "7"]
    assert found["prompt"].to_list()[0] == [{"role": "user", "content": "Hi?"}]


@pytest.mark.parametrize("name", list(exports.FORMATS))
@pytest.mark.parametrize("text", ["{", '[{"data": 1}]', "a,b\n1,2\n", '{"prompt": "x"}', "[[1]]", "null"])
def test_a_file_of_something_else_is_one_clear_error(name, text):
    with pytest.raises(DataRejected, match=name):
        imports.read(text, name)


def test_ranks_that_do_not_fit_are_named():
    row = {"prompt_id": "p9", "prompt": "Hi?", "responses": ["a", "b"], "ranks": [1, 3]}
    with pytest.raises(DataRejected, match="p9"):
        imports.read(json.dumps(row), "jsonl")


def test_imported_rankings_are_a_closed_batch_and_kept_once(feedback):
    first, second = imports.keep(feedback, table(), "elsewhere"), imports.keep(feedback, table(), "elsewhere")
    assert first.id == second.id
    assert batches.find(feedback, "elsewhere").closed_by == "import"
    assert collected.rankings(feedback, first.id).equals(table())
    assert batches.find(feedback, "elsewhere").answered == 3
