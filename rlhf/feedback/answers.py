"""Take a rater's answers. Each is one transaction, and the same answer twice is one answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import case, insert, select, update
from sqlalchemy.orm import Session

from rlhf.feedback.database import PLAIN, Feedback, now
from rlhf.feedback.schema import Assignment, Batch, Item, Ranking
from schemas.errors import AnswerRefused

FLAGS = ("helpful", "wrong", "too verbose", "offensive", "unsafe", "nonsense")
"""What a rater may mark a response with."""

SKIP_REASONS = ("cannot judge", "all the same", "prompt is broken", "upsetting content", "other")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Ranks (or a reason for giving none) to one assignment, in the order of the item's responses."""

    assignment_id: int
    attempt: int
    """The assignment's attempt that is answered; an answer to an earlier one is a repetition."""
    ranks: tuple[int | None, ...] | None = None
    flags: tuple[tuple[str, ...], ...] = field(default=())
    skip_reason: str | None = None
    seconds: float | None = None


def submit(feedback: Feedback, annotator_id: int, answers: Sequence[Answer]) -> int:
    """Write the answers in one transaction; return how many were new."""
    with feedback.write() as session:
        mine = known(session, annotator_id, [answer.assignment_id for answer in answers])
        return submit_in(session, mine, answers)


Known = dict[int, tuple[Assignment, Item, Batch]]
"""Assignments of one rater by id, with what they belong to."""


def known(session: Session, annotator_id: int, assignment_ids: Sequence[int]) -> Known:
    """Return those of the assignments that are this rater's."""
    wanted = (
        select(Assignment, Item, Batch)
        .join(Item, Assignment.item_id == Item.id)
        .join(Batch, Item.batch_id == Batch.id)
        .where(Assignment.annotator_id == annotator_id, Assignment.id.in_(assignment_ids))
    )
    return {assignment.id: (assignment, item, batch) for assignment, item, batch in session.execute(wanted)}


def submit_in(session: Session, mine: Known, answers: Sequence[Answer]) -> int:
    """Write answers to assignments that are known to be the rater's, inside the caller's transaction."""
    counted: dict[int, int] = {}
    new = []
    for answer in answers:
        if answer.assignment_id not in mine:
            raise AnswerRefused(
                f"Assignment {answer.assignment_id} is not yours; answer the item that you were served."
            )
        assignment, item, batch = mine[answer.assignment_id]
        _check(answer, item)
        held = int(assignment.state == "open")  # read before it changes
        if not _settle(session, answer, batch):
            continue
        new.append(_row(answer, item))
        if answer.ranks is not None and item.gold is None:
            counted[batch.id] = counted.get(batch.id, 0) + 1
        place = int(answer.ranks is not None) - held
        if place:
            session.execute(
                update(Item).where(Item.id == item.id).values(taken=Item.taken + place),
                execution_options=PLAIN,
            )
    if new:
        session.execute(insert(Ranking), new)
    for batch_id, number in counted.items():
        _count(session, batch_id, number)
    return len(new)


def _check(answer: Answer, item: Item) -> None:
    size = len(item.responses)
    if answer.flags and len(answer.flags) != size:
        raise AnswerRefused(f"{len(answer.flags)} lists of flags for {size} responses; send one for each.")
    if unknown := {flag for flags in answer.flags for flag in flags} - set(FLAGS):
        raise AnswerRefused(f"Unknown flag {min(unknown)!r}; known are: {', '.join(FLAGS)}.")
    if answer.ranks is None:
        if answer.skip_reason not in SKIP_REASONS:
            raise AnswerRefused(
                f"Skipped because {answer.skip_reason!r}; wanted one of: {', '.join(SKIP_REASONS)}."
            )
        return
    given = sorted({rank for rank in answer.ranks if rank is not None})
    if len(answer.ranks) != size or sum(rank is not None for rank in answer.ranks) < 2:
        raise AnswerRefused(
            f"Ranks {list(answer.ranks)} for {size} responses; wanted one entry for each, two of them ranked."
        )
    if given != list(range(1, len(given) + 1)):
        raise AnswerRefused(f"Ranks {list(answer.ranks)} leave out a place; count from 1, ties share a rank.")


def _settle(session: Session, answer: Answer, batch: Batch) -> bool:
    """Mark the assignment as answered; False when this attempt has been answered before."""
    settling = update(Assignment).where(
        Assignment.id == answer.assignment_id,
        Assignment.attempt == answer.attempt,
        Assignment.state.in_(("open", "expired")),
    )
    state = "skipped" if answer.ranks is None else "ranked"
    # The condition and the change are one statement: of two tabs that submit at once, one finds nothing to change.
    done = session.execute(
        settling.values(state=state, attempt=Assignment.attempt + 1), execution_options=PLAIN
    )
    if not done.rowcount:  # type: ignore[attr-defined]
        return False
    if batch.closed_at is not None:
        raise AnswerRefused(f"Batch {batch.name} is closed; this answer came too late and was not kept.")
    return True


def _row(answer: Answer, item: Item) -> dict[str, object]:
    return {
        "assignment_id": answer.assignment_id,
        "attempt": answer.attempt,
        "ranks": None if answer.ranks is None else list(answer.ranks),
        "flags": [list(flags) for flags in answer.flags] or [[] for _ in item.responses],
        "skip_reason": answer.skip_reason if answer.ranks is None else None,
        "seconds": answer.seconds,
        "created_at": now(),
    }


def _count(session: Session, batch_id: int, number: int) -> None:
    """Count rankings, and close the batch when they reach its quota."""
    reached = (Batch.answered + number >= Batch.quota) & Batch.closed_at.is_(None)
    session.execute(
        update(Batch)
        .where(Batch.id == batch_id)
        .values(
            answered=Batch.answered + number,
            closed_at=case((reached, now()), else_=Batch.closed_at),
            closed_by=case((reached, "quota"), else_=Batch.closed_by),
        ),
        execution_options=PLAIN,
    )


def undo(feedback: Feedback, batch_id: int, annotator_id: int) -> bool:
    """Take back the rater's last answer in an open batch and serve that item again; False: there is none."""
    last = (
        select(Ranking, Assignment, Item, Batch)
        .join(Assignment, Ranking.assignment_id == Assignment.id)
        .join(Item, Assignment.item_id == Item.id)
        .join(Batch, Item.batch_id == Batch.id)
        .where(
            Batch.id == batch_id,
            Batch.closed_at.is_(None),
            Assignment.annotator_id == annotator_id,
            Ranking.undone_at.is_(None),
        )
        .order_by(Ranking.id.desc())
        .limit(1)
    )
    with feedback.write() as session:
        # The lock on the batch keeps it from closing while an answer is taken back.
        session.execute(select(Batch.id).where(Batch.id == batch_id).with_for_update())
        found = session.execute(last).one_or_none()
        if found is None:
            return False
        ranking, assignment, item, batch = found
        reopening = update(Ranking).where(Ranking.id == ranking.id, Ranking.undone_at.is_(None))
        if not session.execute(reopening.values(undone_at=now())).rowcount:  # type: ignore[attr-defined]
            return False
        session.execute(
            update(Assignment).where(Assignment.id == assignment.id).values(state="open", assigned_at=now())
        )
        if ranking.ranks is None:
            session.execute(update(Item).where(Item.id == item.id).values(taken=Item.taken + 1))
        elif item.gold is None:
            session.execute(update(Batch).where(Batch.id == batch.id).values(answered=Batch.answered - 1))
    return True
