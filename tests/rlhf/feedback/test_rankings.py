import polars as pl

from rlhf.feedback.rankings import pairs
from schemas.tables import TABLES, polars_schema

ROW = {
    "prompt_id": "a",
    "prompt": [{"role": "user", "content": "Hi?"}],
    "responses": ["cut", "whole", "unranked", "tied"],
    "finished": [False, True, True, True],
    "rater": "r",
    "ranks": [1, 2, None, 2],
}


def _rankings(*rows):
    return pl.DataFrame(rows, schema=polars_schema("rankings"))


def test_each_response_of_a_pair_says_whether_it_was_cut_off():
    derived = TABLES["preferences"].validate(pairs(_rankings(ROW, {**ROW, "ranks": [3, 1, 2, None]})))
    found = derived.select("chosen", "rejected", "chosen_finished", "rejected_finished").rows()
    assert sorted(found) == [
        ("cut", "tied", False, True),
        ("cut", "whole", False, True),
        ("unranked", "cut", True, False),
        ("whole", "cut", True, False),
        ("whole", "unranked", True, True),
    ]


def test_no_pair_is_a_table_without_rows():
    assert pairs(_rankings({**ROW, "ranks": [1, 1, None, 1]})).schema == polars_schema("preferences")
