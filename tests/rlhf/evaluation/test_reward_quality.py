import numpy as np
import polars as pl
import pytest

from rlhf.evaluation.intervals import bootstrap_mean, bootstrap_ratio, wilson
from rlhf.evaluation.judged_pairs import accuracy, judge_pairs, longer_accuracy
from rlhf.evaluation.reward_quality import describe
from rlhf.models.loading import load_tokenizer
from rlhf.models.precision import Precision
from rlhf.models.reward import RewardModel


def _judged(rows):
    """Rows of (prompt, chosen score, rejected score, chosen tokens, rejected tokens)."""
    return pl.DataFrame(
        [
            {
                "prompt_id": prompt,
                "prompt": [{"role": "user", "content": f"question {prompt}"}],
                "chosen": f"good {row}",
                "rejected": f"bad {row}",
                "margin": None,
                "weight": 1.0,
                "chosen_score": chosen,
                "rejected_score": rejected,
                "gap": 2 * (chosen - rejected),
                "disagreement": 0.0,
                "chosen_tokens": long,
                "rejected_tokens": short,
            }
            for row, (prompt, chosen, rejected, long, short) in enumerate(rows)
        ],
        schema_overrides={"margin": pl.Float64},
    )


ROWS = [
    ("a", 1.0, 0.0, 10, 10),
    ("a", 2.0, 0.0, 20, 10),
    ("b", 0.0, 3.0, 19, 20),
    ("c", 0.0, 0.5, 5, 50),
    ("c", 1.0, 1.0, 50, 5),
]


def _describe(judged):
    return describe(judged, confidence=0.95, samples=200, seed=0)


def test_the_table_by_hand():
    judged = _judged(ROWS)
    found = _describe(judged)
    assert (found.pairs, found.prompts) == (5, 3)
    assert found.accuracy.value == pytest.approx(2.5 / 5)
    assert found.longer_baseline.value == pytest.approx(2.5 / 5)  # one pair of equal lengths
    assert {piece.name: (piece.pairs, piece.accuracy.value) for piece in found.slices} == {
        "matched": (2, 0.5),
        "chosen longer": (2, 0.75),
        "chosen shorter": (2, 0.0),
    }
    assert [(mistake.chosen, mistake.rejected) for mistake in found.mistakes] == [
        ("good 2", "bad 2"),
        ("good 3", "bad 3"),
    ]
    assert found.mistakes[0].prompt == "user: question b"
    assert sum(found.chosen_counts) == sum(found.rejected_counts) == 5
    assert found.disagreement is None
    assert accuracy(judged) == wilson(2.5, 5)
    assert longer_accuracy(judged) == wilson(2.5, 5)


def test_correlations_are_over_responses_and_given_the_preference():
    rows = [(str(row), float(row), float(row) - 1, row + 5, row + 1) for row in range(8)]
    found = _describe(_judged(rows))
    scores = np.array([row[1] for row in rows] + [row[2] for row in rows])
    lengths = np.array([float(row[3]) for row in rows] + [float(row[4]) for row in rows])
    assert found.length_correlation == pytest.approx(np.corrcoef(scores, lengths)[0, 1])
    assert found.partial_length_correlation == pytest.approx(1.0)  # among the chosen, score is length less 5


def test_slices_by_margin_agreement_and_subset():
    judged = _judged(ROWS).with_columns(
        margin=pl.Series([1.0, 2.0, 1.0, 2.0, None]),
        weight=pl.Series([0.2, 0.6, 1.0, 3.0, 1.0]),
        subset=pl.Series(["chat", "chat", "code", "code", None]),
    )
    found = {(piece.by, piece.name): piece for piece in _describe(judged).slices}
    assert (found["margin", "1"].pairs, found["margin", "1"].accuracy.value) == (2, 0.5)
    assert (found["margin", "2"].pairs, found["margin", "2"].accuracy.value) == (2, 0.5)
    assert [name for by, name in found if by == "agreement"] == [
        "0 to 0.25",
        "0.5 to 0.75",
        "0.75 to 1",
        "several votes",
    ]
    assert found["agreement", "0.75 to 1"].pairs == 2
    assert (found["subset", "chat"].accuracy.value, found["subset", "code"].accuracy.value) == (1.0, 0.0)


def test_many_margins_are_cut_into_quartiles_that_lose_no_pair():
    rows = [(str(row), 1.0, 0.0, 5, 5) for row in range(20)]
    judged = _judged(rows).with_columns(margin=pl.Series([float(row) for row in range(20)]))
    pieces = [piece for piece in _describe(judged).slices if piece.by == "margin"]
    assert len(pieces) == 4
    assert sum(piece.pairs for piece in pieces) == 20


def test_disagreement_that_is_larger_on_mistakes_finds_them():
    judged = _judged(ROWS).with_columns(disagreement=pl.Series([0.1, 0.2, 0.9, 0.15, 0.8]))
    found = _describe(judged).disagreement
    assert found.when_right == pytest.approx(0.15)
    assert found.when_wrong == pytest.approx((0.9 + 0.15 + 0.8) / 3)
    # of six comparisons of a wrong with a right one, 0.15 loses against 0.2 only
    assert found.finds_mistakes == pytest.approx(5 / 6)


def test_several_pairs_of_a_prompt_widen_the_interval():
    hits = np.array([3.0, 0.0] * 20)
    by_prompt = bootstrap_ratio(hits, np.full(40, 3.0), confidence=0.95, samples=2_000, seed=0)
    by_pair = bootstrap_mean(np.repeat(hits / 3, 3), confidence=0.95, samples=2_000, seed=0)
    assert by_prompt.value == by_pair.value == 0.5
    assert by_prompt.high - by_prompt.low > 1.5 * (by_pair.high - by_pair.low)


def test_pairs_are_judged_by_normalised_scores_of_the_training_ids(tiny_policy, tmp_path):
    preferences = pl.DataFrame(
        {
            "prompt_id": ["0", "1", "2"],
            "prompt": [[{"role": "user", "content": text}] for text in ("When?", "What?", "Who?")],
            "chosen": ["Thank you.", "We are open.", "the same at first"],
            "rejected": ["euros", "twelve euros", "the same at first and then not"],
            "chosen_finished": [True, True, False],
            "rejected_finished": [True, False, True],
            "margin": [None, 1.0, None],
            "weight": [1.0, 0.5, 1.0],
            "subset": ["x", "y", "z"],
        }
    )
    reward = RewardModel.from_policy(tiny_policy, seed=0, heads=2)
    reward.set_normalisation(mean=[0.5, 0.0], std=[2.0, 1.0])
    reward.save(tmp_path)
    tokenizer = load_tokenizer(tiny_policy)
    tokenizer.save_pretrained(tmp_path)
    from rlhf.data.chat import encode_prompt, encode_response

    length = len(encode_prompt(tokenizer, preferences["prompt"][2])) + len(
        encode_response(tokenizer, "the same at first", finished=False)
    )
    judged = judge_pairs(
        tmp_path, preferences, max_length=length, batch_size=2, precision=Precision(threads=1, dtype="fp32")
    )
    assert judged["subset"].to_list() == ["x", "y"]  # the cut makes the third pair equal
    ids = [
        encode_prompt(tokenizer, judged["prompt"][0]) + encode_response(tokenizer, text)
        for text in ("Thank you.", "euros")
    ]
    raw = reward.member_scores(ids)
    members = reward.normalised_members(ids)
    row = judged.row(0, named=True)
    assert row["chosen_score"] == pytest.approx(members[0].mean().item(), abs=1e-5)
    assert row["gap"] == pytest.approx((raw[0] - raw[1]).mean().item(), abs=1e-5)
    assert row["disagreement"] == pytest.approx((members[0] - members[1]).std(correction=0).item(), abs=1e-5)
    assert (row["chosen_tokens"], row["rejected_tokens"]) == tuple(
        len(encode_response(tokenizer, text)) for text in ("Thank you.", "euros")
    )
