import polars as pl
import torch

from rlhf.data.chat import encode_response
from rlhf.data.pairs import Pair
from rlhf.training.comparisons import MAX_RESPONSES, collate, from_pairs, from_rankings

PROMPT = [{"role": "user", "content": "When do you open?"}]
CPU = torch.device("cpu")


def _pair(chosen, rejected, *, prompt="p", weight=1.0, margin=0.0):
    return Pair(
        row=0, prompt_id=prompt, prompt=[9, 8], chosen=chosen, rejected=rejected, weight=weight, margin=margin
    )


def _rankings(*rows, responses=("We are open.", "Thank you.", "The user said")):
    return pl.DataFrame(
        [
            {
                "prompt_id": "p",
                "prompt": PROMPT,
                "responses": list(responses),
                "finished": [True] * len(responses),
                "rater": rater,
                "ranks": ranks,
            }
            for rater, ranks in rows
        ]
    )


def test_each_response_of_a_prompt_is_in_the_batch_once():
    found = from_pairs(
        [
            _pair([7, 1], [6, 5, 1], weight=0.5),
            _pair([7, 1], [4, 1], margin=2.0),
            _pair([4, 1], [6, 5, 1]),
            _pair([7, 1], [4, 1], prompt="q"),
        ]
    )
    batch = collate(found, CPU)
    assert batch.ids_NL.tolist() == [
        [9, 8, 7, 1, 0],
        [9, 8, 6, 5, 1],
        [9, 8, 4, 1, 0],
        [9, 8, 7, 1, 0],
        [9, 8, 4, 1, 0],
    ]
    assert batch.lengths_N.tolist() == [4, 5, 4, 4, 4]
    assert batch.rows_GK.tolist() == [[0, 1, 2], [3, 4, 0]]
    assert batch.mask_GK.tolist() == [[True, True, True], [True, True, False]]
    assert batch.tokens_GK.tolist() == [[2, 3, 2], [2, 2, 0]]
    assert batch.better_GKK.tolist() == [
        [[0, 0.5, 1], [0, 0, 0], [0, 1, 0]],
        [[0, 1, 0], [0, 0, 0], [0, 0, 0]],
    ]
    assert batch.margins_GKK[0].tolist() == [[0, 0, 2], [0, 0, 0], [0, 0, 0]]
    assert batch.ranks_RK.tolist() == [[1, 2, 0], [1, 0, 2], [0, 2, 1], [1, 2, 0]]
    assert batch.prompt_R.tolist() == [0, 0, 0, 1]
    assert batch.weights_R.tolist() == [0.5, 1, 1, 1]


def test_contrary_votes_stay_apart_and_equal_ones_add_up():
    batch = collate(from_pairs([_pair([7], [6]), _pair([7], [6]), _pair([6], [7])]), CPU)
    assert batch.better_GKK.tolist() == [[[0, 2], [1, 0]]]


def test_a_prompt_with_very_many_responses_becomes_several_examples():
    found = from_pairs([_pair([7], [10 + row]) for row in range(40)])
    assert sum(len(example.pairs) for example in found) == 40
    assert all(len(example.responses) <= MAX_RESPONSES for example in found)


def test_rankings_of_several_raters_share_one_example(tokenizer):
    rankings = _rankings(("ann", [1, 2, 2]), ("bob", [None, 2, 1]), ("eve", [3, 2, 1]))
    (found,) = from_rankings(tokenizer, rankings, {"ann": 0.8, "eve": 0.0}, max_length=64)
    assert found.responses == [encode_response(tokenizer, text) for text in rankings["responses"][0]]
    assert found.rankings == [([1, 2, 2], 0.8), ([0, 2, 1], 1.0)]  # eve is no better than chance
    assert found.pairs == [(0, 1, 0.8, 0.0), (0, 2, 0.8, 0.0), (2, 1, 1.0, 0.0)]


def test_responses_that_the_cut_makes_equal_have_one_rank_or_none(tokenizer):
    texts = ("Thank you for asking.", "Thank you for nothing.", "We are open.")
    prompt = len(from_rankings(tokenizer, _rankings(("ann", [1, 2, 3])), {}, max_length=64)[0].prompt)
    apart, tied = (
        from_rankings(tokenizer, _rankings(("ann", ranks), responses=texts), {}, max_length=prompt + 2)
        for ranks in ([1, 2, 3], [1, 1, 2])
    )
    assert apart == []  # one rank is left, and it says nothing
    assert tied[0].rankings == [([1, 2], 1.0)]
    assert len(tied[0].responses) == 2
