"""The whole store, on SQLite and on PostgreSQL."""

import threading
from itertools import chain

import polars as pl
import pytest
from sqlalchemy import func, select

from rlhf.feedback import annotators, answers, assigning, batches, collected
from rlhf.feedback.answers import Answer
from rlhf.feedback.schema import Assignment, Item, Ranking
from schemas.errors import AnswerRefused, NotFound
from schemas.tables import TABLES


def rater(feedback, name="ann"):
    annotators.add(feedback, name)
    return annotators.named(feedback, name).id


def answer(served, ranks=(1, 2, 3), **more):
    assignment, _ = served
    return Answer(assignment_id=assignment.id, attempt=assignment.attempt, ranks=ranks, **more)


def test_what_was_ranked_comes_back_as_the_table_rankings(feedback, make_batch):
    batch = make_batch(2)
    ann = rater(feedback)
    served = assigning.assign(feedback, batch.id, ann, 2)
    assert answers.submit(feedback, ann, [answer(served[0], (2, 1, 1)), answer(served[1], (None, 2, 1))]) == 2
    table = TABLES["rankings"].validate(collected.rankings(feedback, batch.id))
    assert table["ranks"].to_list() == [[2, 1, 1], [None, 2, 1]]
    assert table["rater"].to_list() == ["ann", "ann"]
    assert table["responses"].to_list()[1] == ["Response 1.0", "Response 1.1", "Response 1.2"]
    assert table["finished"].to_list()[0] == [True, False, True]


def test_hostile_text_is_kept_as_it_is(feedback, make_batch):
    text_ = "\0 <script>alert(1)</script> ‮ \U0001f600 " + "x" * 1_000_000
    frame = pl.DataFrame(
        {
            "prompt_id": ["1"],
            "prompt": [[{"role": "user", "content": text_}]],
            "responses": [[text_, "b"]],
            "tokens": [[1, 1]],
            "finished": [[True, True]],
        }
    )
    batch = batches.publish(feedback, "hostile", frame, batches.Plan(name="hostile"))
    ann = rater(feedback)
    served = assigning.assign(feedback, batch.id, ann)
    answers.submit(feedback, ann, [answer(served[0], (1, 2))])
    row = collected.rankings(feedback, batch.id).row(0, named=True)
    assert row["prompt"][0]["content"] == text_
    assert row["responses"] == [text_, "b"]


def test_to_publish_the_same_again_is_to_find_it(feedback, make_batch):
    first, second = make_batch(), make_batch()
    assert first.id == second.id
    with feedback.read() as session:
        assert session.scalar(select(func.count()).select_from(Item)) == 4


def test_every_item_goes_to_as_many_raters_as_wanted_and_never_twice_to_one(feedback, make_batch):
    batch = make_batch(6, overlap=2)
    raters = [rater(feedback, name) for name in ("ann", "bob", "cy")]
    given = {one: [] for one in raters}
    for _ in range(6):
        for one in raters:
            for served in assigning.assign(feedback, batch.id, one):
                given[one].append(served[1].position)
                answers.submit(feedback, one, [answer(served)])
    assert all(len(set(places)) == len(places) for places in given.values())
    assert sorted(chain(*given.values())) == sorted([*range(6)] * 2)
    assert batches.find(feedback, "batch").closed_by == "quota"


def test_raters_who_ask_at_the_same_time_never_overfill_an_item(feedback, make_batch):
    batch = make_batch(10, overlap=1)
    raters = [rater(feedback, f"rater {number}") for number in range(6)]

    def work(one):
        while served := assigning.assign(feedback, batch.id, one):
            answers.submit(feedback, one, [answer(served[0])])

    threads = [threading.Thread(target=work, args=(one,)) for one in raters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = collected.rankings(feedback, batch.id)
    assert found.height == found["prompt_id"].n_unique() == 10


def test_the_order_on_the_page_is_shuffled_per_rater_and_recorded(feedback, make_batch):
    batch = make_batch(8, size=5, overlap=2)
    orders = {}
    for name in ("ann", "bob"):
        served = assigning.assign(feedback, batch.id, rater(feedback, name), 8)
        orders[name] = [assignment.order for assignment, _ in served]
        assert all(sorted(order) == list(range(5)) for order in orders[name])
    assert orders["ann"] != orders["bob"]
    assert len({tuple(order) for order in orders["ann"]}) > 4


def test_the_same_answer_twice_is_one_answer(feedback, make_batch):
    batch = make_batch(2)
    ann = rater(feedback)
    served = assigning.assign(feedback, batch.id, ann)[0]
    assert answers.submit(feedback, ann, [answer(served)]) == 1
    assert answers.submit(feedback, ann, [answer(served, (3, 2, 1))]) == 0
    assert collected.rankings(feedback, batch.id)["ranks"].to_list() == [[1, 2, 3]]
    assert batches.find(feedback, "batch").answered == 1


def test_two_tabs_that_submit_at_once_give_one_ranking(feedback, make_batch):
    batch = make_batch(1, quota=2.0)
    ann = rater(feedback)
    served = assigning.assign(feedback, batch.id, ann)[0]
    new = []
    threads = [
        threading.Thread(target=lambda: new.append(answers.submit(feedback, ann, [answer(served)])))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(new) == [0] * 7 + [1]
    assert batches.find(feedback, "batch").answered == 1


def test_nobody_answers_for_somebody_else(feedback, make_batch):
    batch = make_batch()
    ann, bob = rater(feedback, "ann"), rater(feedback, "bob")
    served = assigning.assign(feedback, batch.id, ann)[0]
    with pytest.raises(AnswerRefused, match="not yours"):
        answers.submit(feedback, bob, [answer(served)])
    assert collected.rankings(feedback, batch.id).height == 0


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ((1, 2), "one entry for each"),
        ((1, None, None), "two of them ranked"),
        ((1, 3, 3), "leave out a place"),
        ((0, 1, 2), "leave out a place"),
    ],
)
def test_ranks_that_make_no_sense_are_refused_and_nothing_is_written(feedback, make_batch, ranks, said):
    batch = make_batch()
    ann = rater(feedback)
    first, second = assigning.assign(feedback, batch.id, ann, 2)
    with pytest.raises(AnswerRefused, match=said):
        answers.submit(feedback, ann, [answer(first), answer(second, ranks)])
    with feedback.read() as session:
        assert session.scalar(select(func.count()).select_from(Ranking)) == 0


def test_flags_and_skips_are_kept_and_a_skipped_item_goes_to_somebody_else(feedback, make_batch):
    batch = make_batch(1)
    ann, bob = rater(feedback, "ann"), rater(feedback, "bob")
    served = assigning.assign(feedback, batch.id, ann)[0]
    assert not assigning.assign(feedback, batch.id, bob)
    answers.submit(feedback, ann, [answer(served, None, skip_reason="cannot judge")])
    assert not assigning.assign(feedback, batch.id, ann)
    served = assigning.assign(feedback, batch.id, bob)[0]
    answers.submit(feedback, bob, [answer(served, flags=(("wrong", "unsafe"), (), ("helpful",)))])
    skipped, ranked = collected.standing(feedback, batch.id)
    assert (skipped.skip_reason, skipped.ranks) == ("cannot judge", None)
    assert ranked.flags == [["wrong", "unsafe"], [], ["helpful"]]
    with pytest.raises(AnswerRefused, match="Unknown flag"):
        answers.submit(feedback, bob, [answer(served, flags=(("x",), (), ()))])


def test_undo_serves_the_same_item_again_and_keeps_what_was_taken_back(feedback, make_batch):
    batch = make_batch(3)
    ann = rater(feedback)
    first = assigning.assign(feedback, batch.id, ann)[0]
    answers.submit(feedback, ann, [answer(first, (1, 2, 3))])
    assert answers.undo(feedback, batch.id, ann)
    assert not answers.undo(feedback, batch.id, ann)
    again = assigning.assign(feedback, batch.id, ann)[0]
    assert again[1].id == first[1].id
    assert again[0].attempt == 1
    # The page of before the undo is an old one: its answer is a repetition, not a new one.
    assert answers.submit(feedback, ann, [answer(first, (2, 1, 3))]) == 0
    assert answers.submit(feedback, ann, [answer(again, (3, 2, 1))]) == 1
    assert collected.rankings(feedback, batch.id)["ranks"].to_list() == [[3, 2, 1]]
    with feedback.read() as session:
        assert session.scalar(select(func.count()).select_from(Ranking)) == 2


def test_a_closed_batch_takes_nothing_more(feedback, make_batch):
    batch = make_batch()
    ann = rater(feedback)
    first, second = assigning.assign(feedback, batch.id, ann, 2)
    answers.submit(feedback, ann, [answer(first)])
    assert batches.close(feedback, batch.id, "root").closed_by == "root"
    assert batches.close(feedback, batch.id, "somebody else").closed_by == "root"
    assert not answers.undo(feedback, batch.id, ann)
    with pytest.raises(AnswerRefused, match="closed"):
        answers.submit(feedback, ann, [answer(second)])
    # A retry of what was acknowledged before is still acknowledged.
    assert answers.submit(feedback, ann, [answer(first)]) == 0


def test_an_item_that_nobody_answers_in_time_goes_on_and_a_late_answer_still_counts(
    feedback, make_batch, monkeypatch
):
    batch = make_batch(1, quota=2.0)
    ann, bob = rater(feedback, "ann"), rater(feedback, "bob")
    late = assigning.assign(feedback, batch.id, ann)[0]
    assert not assigning.assign(feedback, batch.id, bob)
    monkeypatch.setattr(assigning, "LEASE_SECONDS", -1.0)
    served = assigning.assign(feedback, batch.id, bob)[0]
    assert served[1].id == late[1].id
    answers.submit(feedback, ann, [answer(late)])
    answers.submit(feedback, bob, [answer(served)])
    assert collected.rankings(feedback, batch.id)["rater"].to_list() == ["ann", "bob"]


def test_gold_questions_come_to_everybody_and_are_no_training_data(feedback, make_batch, gold):
    batch = make_batch(9, gold=gold, gold_every=3, overlap=2)
    for name in ("ann", "bob"):
        one = rater(feedback, name)
        seen = []
        while served := assigning.assign(feedback, batch.id, one):
            seen.append(served[0][1].gold is not None)
            answers.submit(feedback, one, [answer(served[0])])
        assert sum(seen) >= 3
        assert len(seen) - sum(seen) == 9
    assert collected.rankings(feedback, batch.id).height == 18
    assert batches.find(feedback, "batch").answered == 18


def test_an_excluded_rater_counts_no_more_and_comes_back_whole(feedback, make_batch):
    batch = make_batch(2, quota=2.0)
    ann, bob = rater(feedback, "ann"), rater(feedback, "bob")
    for served in assigning.assign(feedback, batch.id, ann, 2):
        answers.submit(feedback, ann, [answer(served)])
    annotators.exclude(feedback, ann, "answers in a second")
    assert collected.rankings(feedback, batch.id).height == 0
    assert batches.find(feedback, "batch").answered == 0
    assert not assigning.assign(feedback, batch.id, ann)
    assert len(assigning.assign(feedback, batch.id, bob, 2)) == 2
    annotators.restore(feedback, ann)
    assert collected.rankings(feedback, batch.id).height == 2
    assert batches.find(feedback, "batch").answered == 2


def test_counters_agree_with_what_they_count(feedback, make_batch):
    batch = make_batch(5, overlap=2)
    ann, bob = rater(feedback, "ann"), rater(feedback, "bob")
    for one in (ann, bob):
        for number, served in enumerate(assigning.assign(feedback, batch.id, one, 4)):
            skipped = {"ranks": None, "skip_reason": "other"} if number == 1 else {}
            answers.submit(feedback, one, [answer(served, **skipped)])
    answers.undo(feedback, batch.id, ann)

    def counters():
        with feedback.read() as session:
            taken = session.scalars(select(Item.taken).order_by(Item.position)).all()
        return taken, batches.find(feedback, "batch").answered

    kept = counters()
    with feedback.write() as session:
        batches.recount(session)
    assert counters() == kept


def test_what_does_not_exist_is_said_with_what_does(feedback, make_batch):
    make_batch()
    annotators.add(feedback, "ann")
    with pytest.raises(NotFound, match="the newest are: batch"):
        batches.find(feedback, "none")
    with pytest.raises(NotFound, match="known are: ann"):
        annotators.named(feedback, "bob")
    assert batches.find(feedback, "1").name == "batch"


def test_constraints_hold_even_against_a_defect(feedback, make_batch):
    from sqlalchemy.exc import IntegrityError

    batch = make_batch()
    ann = rater(feedback)
    assignment, _ = assigning.assign(feedback, batch.id, ann)[0]
    with pytest.raises(IntegrityError), feedback.write() as session:
        session.add(
            Assignment(
                item_id=assignment.item_id,
                annotator_id=ann,
                order=[0],
                state="open",
                attempt=0,
                assigned_at=0.0,
            )
        )
