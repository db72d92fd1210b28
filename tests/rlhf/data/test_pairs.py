import polars as pl
import pytest

from rlhf.data.chat import encode_prompt, encode_response
from rlhf.data.pairs import encode_pairs
from schemas.errors import DataRejected


@pytest.fixture
def preferences() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "prompt_id": ["0", "1"],
            "prompt": [
                [{"role": "user", "content": f"What does kettle {number} cost?"}] for number in range(2)
            ],
            "chosen": ["Thank you for asking."] * 2,
            "rejected": ["0 euros", "1 euros"],
            "chosen_finished": [True] * 2,
            "rejected_finished": [True] * 2,
            "margin": [None, 2.0],
            "weight": [1.0, 0.25],
        }
    )


def test_a_pair_knows_its_row_weight_and_margin(tokenizer, preferences):
    found = encode_pairs(tokenizer, preferences, max_length=64)
    assert [(pair.row, pair.weight, pair.margin) for pair in found] == [(0, 1.0, 0.0), (1, 0.25, 2.0)]


def test_the_pairs_hold_the_ids_that_ppo_gives_the_reward_model(tokenizer, preferences):
    row = preferences.row(0, named=True)
    pair = encode_pairs(tokenizer, preferences, max_length=64)[0]
    assert pair.prompt == encode_prompt(tokenizer, row["prompt"])
    assert pair.chosen == encode_response(tokenizer, row["chosen"])
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        unfinished = preferences.with_columns(pl.lit(value=False).alias(f"{side}_finished"))
        cut = encode_pairs(tokenizer, unfinished, max_length=64)[0]
        assert getattr(cut, side) == encode_response(tokenizer, row[side])[:-1]
        assert getattr(cut, other) == encode_response(tokenizer, row[other])


def test_pairs_that_a_cut_makes_equal_are_left_out_and_counted(tokenizer, preferences, caplog):
    longer = preferences.with_columns(rejected=pl.lit("Thank you for nothing."))
    prompt = len(encode_prompt(tokenizer, preferences["prompt"][0]))
    mixed = pl.concat([preferences.head(1), longer.head(1)])
    assert len(encode_pairs(tokenizer, mixed, max_length=prompt + 2)) == 1
    assert "1 became equal" in caplog.text
    with pytest.raises(DataRejected, match="max_length"):
        encode_pairs(tokenizer, preferences, max_length=4)
