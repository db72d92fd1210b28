import pytest

from rlhf.data.chat import encode_response
from rlhf.evaluation.pieces import pieces


@pytest.mark.parametrize(
    "text", ["We are open from nine to five.", "zwölf Grüße: 東京 🙂 ok", "", "  two  spaces"]
)
def test_the_pieces_joined_are_the_response_and_their_parts_add_up(tokenizer, text):
    ids = encode_response(tokenizer, text)
    kls = [0.5 * place - 1 for place in range(len(ids))]
    texts, sums = pieces(tokenizer, ids, kls)
    assert "".join(texts) == text
    assert sum(sums) == pytest.approx(sum(kls))
    assert len(texts) == len(sums)
    assert texts[-1] == ""  # the stop id


def test_a_character_of_several_tokens_is_one_piece(tokenizer):
    ids = encode_response(tokenizer, "a東b", finished=False)
    texts, sums = pieces(tokenizer, ids, [1.0] * len(ids))
    assert texts == ["a", "東", "b"]
    assert sums == [1.0, float(len(ids) - 2), 1.0]


def test_bytes_that_never_become_a_character_are_not_lost(tokenizer):
    broken = encode_response(tokenizer, "東", finished=False)[:2]
    texts, sums = pieces(tokenizer, broken, [1.0, 2.0])
    assert sum(sums) == 3.0
    assert len(texts) == 1
