"""Repeats are dropped or counted, contradictions go to the majority, near-duplicates are named."""

import polars as pl
import pytest

from rlhf.data.near import clusters

ASK = "Where is the nearest bakery that opens early on Sunday mornings?"
LEFT, RIGHT = "On the corner of Mill Street.", "I do not care at all."


def row(chosen, rejected, ask=ASK):
    return {"prompt": ask, "chosen": chosen, "rejected": rejected}


def kept(tmp_path):
    return pl.read_parquet(tmp_path / "out" / "preferences.parquet")


def test_the_first_of_equal_rows_stays(validated, tmp_path):
    report = validated([row(LEFT, RIGHT), row("Other.", RIGHT), row(LEFT, RIGHT), row(LEFT + " ", RIGHT)])
    assert (report.kept, report.reasons, report.quarantined) == (2, {"exact_duplicate": 2}, 0)
    assert [f.row for f in report.findings if f.kind == "exact_duplicate"] == [2, 3]
    assert kept(tmp_path)["weight"].to_list() == [1.0, 1.0]


@pytest.mark.parametrize(("votes", "weight"), [("drop", 1 / 3), ("count", 1.0)])
def test_the_side_with_more_votes_wins(votes, weight, validated, tmp_path):
    rows = [row(LEFT, RIGHT), row(RIGHT, LEFT), row(LEFT, RIGHT)]
    report = validated(rows, checks={"votes": votes})
    assert (report.kept, report.quarantined, report.reasons) == (1, 1, {"exact_duplicate": 1})
    assert [f.row for f in report.findings if f.kind == "contradictory_pair"] == [1]
    # Two votes of three: the net share is a third, the net number one.
    assert kept(tmp_path)["weight"].to_list() == pytest.approx([weight])
    assert kept(tmp_path)["chosen"].to_list() == [LEFT]


def test_equal_votes_cost_both_sides(validated, places):
    report = validated([row(LEFT, RIGHT), row("Other.", RIGHT), row(RIGHT, LEFT)])
    assert (report.kept, report.quarantined) == (1, 2)
    assert {("contradictory_pair", 0), ("contradictory_pair", 2)} <= places(report)


def test_a_recipe_may_let_contradictions_through(validated, tmp_path):
    report = validated(
        [row(LEFT, RIGHT), row(RIGHT, LEFT)], checks={"rules": {"contradictory_pair": {"level": "warn"}}}
    )
    assert (report.verdict, report.kept) == ("warn", 2)
    assert kept(tmp_path).height == 2


def test_three_raters_of_one_record_are_three_votes(validated, tmp_path):
    rows = [
        {
            "instruction": ASK,
            "response1": LEFT,
            "response2": RIGHT,
            "annotator1": 1,
            "annotator2": 2,
            "annotator3": 1,
        }
    ]
    report = validated(rows)
    assert (report.rows, report.kept, report.quarantined) == (1, 1, 0)
    assert kept(tmp_path).select("chosen", "weight").rows() == [(LEFT, pytest.approx(1 / 3))]


def test_an_id_on_two_different_rows_is_named(validated, places):
    report = validated(
        [{"id": "a", **row(LEFT, RIGHT)}, {"id": "a", **row("Other.", RIGHT)}, row("More.", RIGHT)]
    )
    assert ("duplicate_id", 1) in places(report)
    assert report.kept == 3


def test_rows_that_differ_in_case_and_punctuation_are_near(validated, places):
    long = "Turn left at the station, walk past the old mill, and ring twice at the green door."
    report = validated(
        [
            row(long, RIGHT),
            row(long.upper().replace(",", ";"), RIGHT, ASK.lower()),
            row("Other.", RIGHT, "Why?"),
        ]
    )
    assert ("near_duplicate", 1) in places(report)
    assert report.kept == 3


def test_clusters_follow_similarity_and_nothing_else():
    texts = [
        ASK,
        "Hi",
        ASK.upper(),
        ASK.replace("Sunday", "Monday") + " Please tell me soon.",
        "Hi!",
        "",
        "你好吗朋友们",
        "你好吗朋友们!",
    ]
    # 9 shingles in the first; the fourth shares 6 of 17: not similar.
    assert clusters(pl.Series(texts)).tolist() == [0, 1, 0, 3, 1, 5, 6, 6]


def test_the_estimate_is_close_to_the_true_similarity():
    words = [f"w{i}" for i in range(202)]
    same = " ".join(words)
    # 200 shingles; changing a word in the middle breaks 3: J = 197/203. Changing every 8th breaks 25*3: J = 125/275.
    close = " ".join([*words[:100], "x", *words[101:]])
    far = " ".join("x" if i % 8 == 4 else word for i, word in enumerate(words))
    assert clusters(pl.Series([same, close, far])).tolist() == [0, 0, 2]
