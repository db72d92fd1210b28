"""Pairs for reviewers elsewhere, and their verdicts as rankings of the same batch."""

import pytest

from rlhf.feedback import annotators, batches, collected, raters, reviews
from rlhf.feedback.answers import Answer, submit
from rlhf.feedback.assigning import assign
from schemas.errors import DataRejected
from schemas.reviews import Verdict


def verdict(key: str, choice: str, reviewer: str = "ann") -> Verdict:
    return Verdict(key=key, reviewer=reviewer, choice=choice)


def test_each_item_gives_one_pair_and_the_seed_decides_which(feedback, make_batch, gold):
    batch = make_batch(20, gold=gold, gold_every=5, seed=3)
    found = reviews.pairs(feedback, batch)
    assert len(found) == 20  # and no gold question
    for place, pair in enumerate(found):
        position, a, b = map(int, pair.key.split(":"))
        assert position == place
        assert (pair.a, pair.b) == (f"Response {place}.{a}", f"Response {place}.{b}")
        assert pair.prompt == [{"role": "user", "content": f"Question {place}?"}]
    assert reviews.pairs(feedback, batch) == found
    drawn = {tuple(pair.key.split(":")[1:]) for pair in found}
    assert drawn == {(str(a), str(b)) for a in range(3) for b in range(3) if a != b}


def test_verdicts_become_rankings_that_count_once(feedback, make_batch):
    batch = make_batch(4, overlap=2)
    said = [
        verdict("0:2:0", "A"),
        verdict("1:0:1", "B"),
        verdict("2:1:2", "tie"),
        verdict("0:2:0", "B", "bob"),
    ]
    assert reviews.take(feedback, batch, said) == (4, 0)
    assert reviews.take(feedback, batch, said) == (0, 0)
    # Who has answered has answered: what is changed afterwards is not taken.
    assert reviews.take(feedback, batch, [verdict("0:2:0", "tie")]) == (0, 0)
    table = collected.rankings(feedback, batch.id)
    assert list(zip(table["rater"], table["ranks"].to_list(), strict=True)) == [
        ("ann", [2, None, 1]),
        ("bob", [1, None, 2]),
        ("ann", [2, 1, None]),
        ("ann", [None, 1, 1]),
    ]
    now = batches.find(feedback, str(batch.id))
    assert (now.answered, now.closed_at) == (4, None)
    # The store serves ann what is left, and bob what he has not answered elsewhere.
    ids = {name: annotators.named(feedback, name).id for name in ("ann", "bob")}
    served = {name: [item.position for _, item in assign(feedback, batch.id, ids[name], 9)] for name in ids}
    assert served == {"ann": [3], "bob": [1, 2, 3]}


def test_the_quota_closes_the_batch_and_later_verdicts_are_told_apart(feedback, make_batch):
    batch = make_batch(2)
    assert reviews.take(feedback, batch, [verdict("0:0:1", "A"), verdict("1:0:1", "A")]) == (2, 0)
    assert batches.find(feedback, str(batch.id)).closed_by == "quota"
    assert reviews.take(feedback, batch, [verdict("0:0:1", "B", "late")]) == (0, 1)
    assert collected.rankings(feedback, batch.id)["rater"].to_list() == ["ann", "ann"]


def test_an_item_that_was_served_on_the_page_may_be_answered_elsewhere(feedback, make_batch):
    batch = make_batch(1, overlap=2)
    annotators.add(feedback, "ann")
    ((assignment, _),) = assign(feedback, batch.id, annotators.named(feedback, "ann").id)
    assert reviews.take(feedback, batch, [verdict("0:0:1", "A")]) == (1, 0)
    late = Answer(assignment_id=assignment.id, attempt=assignment.attempt, ranks=(2, 1, 3))
    assert submit(feedback, annotators.named(feedback, "ann").id, [late]) == 0


@pytest.mark.parametrize("key", ["9:0:1", "0:0:0", "0:0:7", "0:0", "x:0:1"])
def test_a_verdict_on_what_the_batch_does_not_have_is_refused_and_nothing_is_kept(feedback, make_batch, key):
    batch = make_batch(2)
    with pytest.raises(DataRejected):
        reviews.take(feedback, batch, [verdict("1:0:1", "A"), verdict(key, "A")])
    assert collected.rankings(feedback, batch.id).height == 0


def test_who_always_prefers_what_is_shown_first_is_found_among_pairs_too(feedback, make_batch):
    batch = make_batch(60)
    said = [verdict(pair.key, "A") for pair in reviews.pairs(feedback, batch)]
    reviews.take(feedback, batch, said)
    (found,) = raters.statistics(collected.standing(feedback, batch.id))
    # By chance one of two wins; with the third response counted in it would be one of three.
    assert found.first == 1.0
    assert found.first_expected == pytest.approx(0.5)
    assert found.position_z == pytest.approx(60**0.5)
