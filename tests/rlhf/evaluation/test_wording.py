import polars as pl
import pytest

from rlhf.evaluation.wording import describe, distinct, repetition


def test_distinct_by_hand():
    # words: a b a | b c -> 3 different of 5; pairs: ab ba | bc -> 3 of 3
    responses = [["a", "b", "a"], ["b", "c"]]
    assert distinct(responses, 1) == pytest.approx(0.6)
    assert distinct(responses, 2) == 1.0
    assert distinct([["a"]], 2) == 1.0


def test_repetition_counts_what_has_been_said_before_in_the_same_response():
    # 4-grams of "a b c d a b c d": abcd bcda cdab dabc abcd -> 4 different of 5
    assert repetition(["a", "b", "c", "d", "a", "b", "c", "d"], 4) == pytest.approx(0.2)
    assert repetition(["a", "b", "c", "d", "e"], 4) == 0.0
    assert repetition(["a", "b"], 4) == 0.0


def test_entropy_and_lengths_by_hand():
    samples = pl.DataFrame(
        {"response": ["a b", "a c", "d"], "tokens": [1, 2, 3], "logprob": [-1.0, -2.0, -6.0]}
    )
    found = describe(samples)
    assert found.entropy == pytest.approx(9.0 / 6)
    assert (found.length_p10, found.length_p50, found.length_p90) == pytest.approx((1.2, 2.0, 2.8))
    assert found.distinct_1 == pytest.approx(4 / 5)
