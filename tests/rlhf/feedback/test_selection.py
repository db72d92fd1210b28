"""Which prompts a round asks raters about."""

import math

import numpy as np
import polars as pl
import pytest

from rlhf.feedback.selection import doubt, most_doubtful, next_prompts


def table(*ids: str) -> pl.DataFrame:
    return pl.DataFrame({"prompt_id": list(ids)}, schema={"prompt_id": pl.String})


def test_prompts_that_nobody_was_asked_about_come_first_then_those_of_longest_ago():
    prompts = table("a", "b", "c", "d", "e")
    asked = [table("b", "a"), table("d", "b")]
    assert next_prompts(prompts, asked, 2)["prompt_id"].to_list() == ["c", "e"]
    # a was asked in the first round, b and d in the second: each group in the prompts' order.
    assert next_prompts(prompts, asked, 9)["prompt_id"].to_list() == ["c", "e", "a", "b", "d"]
    assert next_prompts(prompts, [], 3)["prompt_id"].to_list() == ["a", "b", "c"]


def test_doubt_by_hand():
    # Two members, two responses: differences of log 3 and -log 3, so probabilities 3/4 and 1/4, deviation 1/4.
    assert doubt(np.array([[math.log(3), 0.0], [0.0, math.log(3)]])) == pytest.approx(0.25, abs=1e-12)
    # A third response far below both: nobody doubts the two comparisons with it; the mean is over three.
    three = np.array([[math.log(3), 0.0], [0.0, math.log(3)], [-60.0, -60.0]])
    assert doubt(three) == pytest.approx(0.25 / 3, abs=1e-12)


def test_members_that_differ_by_a_constant_agree():
    scores = np.random.default_rng(0).normal(size=(4, 1)) + np.array([[0.0, 5.0, -2.0]])
    assert doubt(scores) == pytest.approx(0.0, abs=1e-12)
    order = np.random.default_rng(1).normal(size=(4, 3))
    assert doubt(order[::-1]) == pytest.approx(doubt(order), abs=1e-12)
    assert 0 < doubt(order) <= 0.5


def test_the_most_doubtful_prompts_keep_their_order_and_ties_go_to_the_earlier():
    frame = table("a", "b", "c", "d")
    assert most_doubtful(frame, [0.1, 0.3, 0.2, 0.3], 2)["prompt_id"].to_list() == ["b", "d"]
    assert most_doubtful(frame, [0.3, 0.1, 0.3, 0.3], 2)["prompt_id"].to_list() == ["a", "c"]
    assert most_doubtful(frame, [0.1] * 4, 9).equals(frame)
