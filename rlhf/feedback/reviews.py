"""Pairs of a batch for reviewers elsewhere, and their verdicts as rankings of the same batch."""

import random
from collections.abc import Iterable
from itertools import groupby

from sqlalchemy import select
from sqlalchemy.orm import Session

from rlhf.feedback import annotators, answers
from rlhf.feedback.answers import Answer
from rlhf.feedback.database import Feedback, now
from rlhf.feedback.schema import Assignment, Batch, Item
from schemas.errors import AnswerRefused, DataRejected
from schemas.reviews import ReviewPair, Verdict


def pairs(feedback: Feedback, batch: Batch) -> list[ReviewPair]:
    """Return one pair of each item, gold questions left out: which two, and which is A, follow from the batch's seed.

    Of more than two responses the others stay unranked; sample two per prompt if every response is to be compared.
    """
    wanted = select(Item).where(Item.batch_id == batch.id, Item.gold.is_(None)).order_by(Item.position)
    with feedback.read() as session:
        found = session.scalars(wanted).all()
    drawn = []
    for item in found:
        distinct = sorted({text: place for place, text in enumerate(item.responses)}.values())
        if len(distinct) < 2:
            continue  # the same text is no comparison
        a, b = random.Random(f"review {batch.seed} {item.position}").sample(distinct, 2)
        drawn.append(
            ReviewPair(
                key=f"{item.position}:{a}:{b}", prompt=item.prompt, a=item.responses[a], b=item.responses[b]
            )
        )
    return drawn


def take(feedback: Feedback, batch: Batch, verdicts: Iterable[Verdict]) -> tuple[int, int]:
    """Keep verdicts as rankings of two responses; return how many were new, and how many came after the batch closed.

    Who has answered an item, here or on the labelling page, has answered it: their first answer stands.
    """
    kept = late = 0
    by_reviewer = sorted(verdicts, key=lambda verdict: verdict.reviewer)
    for reviewer, given in groupby(by_reviewer, key=lambda verdict: verdict.reviewer):
        who, new = annotators.outside(feedback, reviewer), []
        try:
            with feedback.write() as session:
                new = [answer for verdict in given if (answer := _answer(session, batch, who, verdict))]
                known = answers.known(session, who, [answer.assignment_id for answer in new])
                kept += answers.submit_in(session, known, new)
        except AnswerRefused:
            late += len(new)
    return kept, late


def _answer(session: Session, batch: Batch, annotator_id: int, verdict: Verdict) -> Answer | None:
    """Assign the item to the reviewer and return the answer to it; None when it is answered already."""
    position, a, b = _read(verdict.key)
    item = session.scalar(select(Item).where(Item.batch_id == batch.id, Item.position == position))
    if item is None or a == b or not {a, b} <= set(range(len(item.responses))):
        raise DataRejected(
            f"{verdict.reviewer}'s verdict is on pair {verdict.key}, which batch {batch.name} does not have; collect it into the batch that was published."
        )
    assignment = session.scalar(
        select(Assignment).where(Assignment.item_id == item.id, Assignment.annotator_id == annotator_id)
    )
    if assignment is None:
        rest = [place for place in range(len(item.responses)) if place not in (a, b)]
        assignment = Assignment(
            item_id=item.id, annotator_id=annotator_id, order=[a, b, *rest], state="open", attempt=0,
            assigned_at=now(),
        )  # fmt: skip
        session.add(assignment)
        item.taken += 1
        session.flush()
    elif assignment.state not in ("open", "expired"):
        return None
    ranks: list[int | None] = [None] * len(item.responses)
    ranks[a], ranks[b] = {"A": (1, 2), "B": (2, 1), "tie": (1, 1)}[verdict.choice]
    return Answer(assignment_id=assignment.id, attempt=assignment.attempt, ranks=tuple(ranks))


def _read(key: str) -> tuple[int, int, int]:
    try:
        position, a, b = map(int, key.split(":"))
    except ValueError:
        raise DataRejected(f"{key[:40]!r} names no pair of a batch; wanted POSITION:A:B.") from None
    return position, a, b
