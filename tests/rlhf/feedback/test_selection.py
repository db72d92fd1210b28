"""Which prompts a round asks raters about."""

import polars as pl

from rlhf.feedback.selection import next_prompts


def table(*ids: str) -> pl.DataFrame:
    return pl.DataFrame({"prompt_id": list(ids)}, schema={"prompt_id": pl.String})


def test_prompts_that_nobody_was_asked_about_come_first_then_those_of_longest_ago():
    prompts = table("a", "b", "c", "d", "e")
    asked = [table("b", "a"), table("d", "b")]
    assert next_prompts(prompts, asked, 2)["prompt_id"].to_list() == ["c", "e"]
    # a was asked in the first round, b and d in the second: each group in the prompts' order.
    assert next_prompts(prompts, asked, 9)["prompt_id"].to_list() == ["c", "e", "a", "b", "d"]
    assert next_prompts(prompts, [], 3)["prompt_id"].to_list() == ["a", "b", "c"]
