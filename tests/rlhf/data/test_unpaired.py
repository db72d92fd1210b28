import polars as pl
import pytest

from rlhf.data.chat import encode_response
from rlhf.data.unpaired import encode_judged, from_feedback, from_preferences
from schemas.errors import DataRejected

PROMPT = [{"role": "user", "content": "When do you open?"}]


def _pairs(*votes, weight=1.0):
    return pl.DataFrame(
        [
            {
                "prompt_id": "a", "prompt": PROMPT, "chosen": chosen, "rejected": rejected,
                "chosen_finished": True, "rejected_finished": rejected != "cut", "margin": None, "weight": weight,
            }
            for chosen, rejected in votes
        ],
        schema_overrides={"margin": pl.Float64},
    )  # fmt: skip


def test_of_a_ranking_the_upper_half_is_good_and_the_ends_count_most():
    # A over B over C over D: 3, 2 - 1, 1 - 2 and -3 of three comparisons each.
    ranking = "ABCD"
    pairs = _pairs(*((a, b) for i, a in enumerate(ranking) for b in ranking[i + 1 :]))
    found = from_preferences(pairs)
    assert found["response"].to_list() == ["A", "B", "C", "D"]
    assert found["label"].to_list() == [True, True, False, False]
    assert found["weight"].to_list() == pytest.approx([1, 1 / 3, 1 / 3, 1])


def test_what_is_preferred_as_often_as_not_is_left_out():
    found = from_preferences(_pairs(("A", "B"), ("B", "A"), ("A", "C")))
    assert dict(found.select("response", "label").iter_rows()) == {"A": True, "C": False}


def test_the_weights_of_pairs_are_votes():
    pairs = pl.concat([_pairs(("A", "B"), weight=3.0), _pairs(("B", "A"), weight=1.0)])
    found = from_preferences(pairs)
    assert found["label"].to_list() == [True, False]
    assert found["weight"].to_list() == pytest.approx([0.5, 0.5])


def test_a_cut_response_is_not_ended(tokenizer):
    judged = encode_judged(tokenizer, from_preferences(_pairs(("good", "cut"))), max_length=64)
    assert [one.response for one in judged] == [
        encode_response(tokenizer, "good"), encode_response(tokenizer, "cut", finished=False),
    ]  # fmt: skip
    assert [one.good for one in judged] == [True, False]


def _feedback(*labels):
    return pl.DataFrame(
        [
            {
                "prompt_id": "a",
                "prompt": PROMPT,
                "response": f"{number}",
                "rater": "r",
                "label": label,
                "score": 1.0,
            }
            for number, label in enumerate(labels)
        ],
        schema_overrides={"label": pl.Boolean},
    )


def test_feedback_without_a_label_says_neither_good_nor_bad():
    found = from_feedback(_feedback(True, None, False))
    assert found["response"].to_list() == ["0", "2"]
    assert found["label"].to_list() == [True, False]
    assert found.schema == from_preferences(_pairs(("A", "B"))).schema


@pytest.mark.parametrize("labels", [(True, True), (False,), (None,)])
def test_one_kind_alone_is_refused(tokenizer, labels):
    with pytest.raises(DataRejected, match=r"good and .* bad responses are left .* wanted some of each"):
        encode_judged(tokenizer, from_feedback(_feedback(*labels)), max_length=64)
