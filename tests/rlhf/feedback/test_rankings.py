import polars as pl
import pytest

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
    derived = TABLES["preferences"].validate(
        pairs(_rankings(ROW, {**ROW, "prompt_id": "b", "ranks": [3, 1, 2, None]}))
    )
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


def test_several_raters_give_one_pair_in_the_direction_that_is_more_probable():
    rows = [{**ROW, "rater": name, "ranks": ranks} for name, ranks in (
        ("a", [1, 2, None, None]), ("b", [1, 2, None, None]), ("c", [2, 1, None, None])
    )]  # fmt: skip
    derived = pairs(_rankings(*rows), {"a": 0.8, "b": 0.8, "c": 0.8})
    # Two votes against one of equal odds 4 : 1 leave 4 : 1, so p = 0.8 and the weight is 0.6.
    assert derived.select("chosen", "rejected", "weight").rows() == [("cut", "whole", pytest.approx(0.6))]
    # One rater of odds 99 : 1 outweighs two of 4 : 1, which make 16 : 1.
    trusted = pairs(_rankings(*rows), {"a": 0.8, "b": 0.8, "c": 0.99})
    assert trusted["chosen"].to_list() == ["whole"]


def test_votes_that_cancel_out_give_no_pair():
    rows = [
        {**ROW, "rater": "a", "ranks": [1, 2, None, None]},
        {**ROW, "rater": "b", "ranks": [2, 1, None, None]},
    ]
    assert pairs(_rankings(*rows), {"a": 0.7, "b": 0.7}).height == 0


def test_one_rater_s_pairs_weigh_one_and_margins_count_places():
    derived = pairs(_rankings({**ROW, "ranks": [3, 1, None, 2]}), margins=True)
    found = {(row["chosen"], row["rejected"]): row["margin"] for row in derived.iter_rows(named=True)}
    assert found == {("whole", "tied"): 1.0, ("whole", "cut"): 2.0, ("tied", "cut"): 1.0}
    assert set(derived["weight"]) == {1.0}
    assert set(pairs(_rankings(ROW))["margin"]) == {None}
