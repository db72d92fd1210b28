import polars as pl

from rlhf.data.helpdesk.world import World
from rlhf.feedback import simulated
from rlhf.feedback.rankings import pairs
from schemas.config import PreferencesConfig
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


def test_simulated_raters_hand_on_what_the_sampler_said():
    question = World(0).questions(1)[0]
    candidates = pl.DataFrame(
        [
            {
                "prompt_id": "0a",
                "prompt": [{"role": "user", "content": question}],
                "responses": ["We open at nine.", "No."],
                "tokens": [5, 2],
                "finished": [False, True],
            }
        ],
        schema=polars_schema("candidates"),
    )
    ranked = simulated.rank(candidates, PreferencesConfig(), world_seed=0, seed=0)
    assert TABLES["rankings"].validate(ranked)["finished"].to_list() == [[False, True]]
