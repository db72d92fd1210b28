"""Give each rater the next items: every item to as many raters as its batch wants, none twice to the same."""

import random
import zlib
from collections.abc import Sequence

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from rlhf.feedback.database import PLAIN, Feedback, now
from rlhf.feedback.schema import Annotator, Assignment, Batch, Item

LEASE_SECONDS = 1800.0
"""After this, an item that was served and not answered may go to somebody else as well."""

Served = Sequence[tuple[Assignment, Item]]


def assign(feedback: Feedback, batch_id: int, annotator_id: int, limit: int = 1) -> Served:
    """Return up to `limit` items for a rater: first those that wait for their answer, then new ones."""
    with feedback.write() as session:
        return assign_in(session, batch_id, annotator_id, limit)


def assign_in(session: Session, batch_id: int, annotator_id: int, limit: int = 1) -> Served:
    """Do the same inside the caller's transaction."""
    waiting = _waiting(session, batch_id, annotator_id, limit)
    if len(waiting) >= limit:
        return waiting
    # On PostgreSQL the lock on the batch makes raters take turns; SQLite has one writer anyway.
    both = select(Batch, Annotator).join(Annotator, Annotator.id == annotator_id)
    locked = both.where(Batch.id == batch_id)
    batch, rater = session.execute(locked.with_for_update(of=Batch)).one()
    if batch.closed_at is not None or rater.excluded_at is not None:
        return waiting
    chosen = _choose(session, batch, rater, limit - len(waiting))
    if not chosen and not waiting and _expire(session, batch):
        chosen = _choose(session, batch, rater, limit)
    return [*waiting, *_take(session, batch, rater, chosen)]


def _waiting(session: Session, batch_id: int, annotator_id: int, limit: int) -> Served:
    wanted = (
        select(Assignment, Item)
        .join(Item, Assignment.item_id == Item.id)
        .where(
            Assignment.annotator_id == annotator_id,
            Assignment.state.in_(("open", "expired")),
            Item.batch_id == batch_id,
        )
        .order_by(Assignment.id)
        .limit(limit)
    )
    return [(assignment, item) for assignment, item in session.execute(wanted)]


def _choose(session: Session, batch: Batch, rater: Annotator, limit: int) -> list[Item]:
    """Return items that this rater has not seen; every so many of them is a gold question."""
    unseen = _unseen(batch, rater.id)
    # The least taken come first, so that a batch that is closed early has an answer to most of its items.
    ordinary = unseen.where(Item.gold.is_(None), Item.taken < batch.overlap).order_by(
        Item.taken, Item.position
    )
    items = list(session.scalars(ordinary.limit(limit)))
    if not batch.gold_every:
        return items
    golden = list(session.scalars(unseen.where(Item.gold.is_not(None)).order_by(Item.position).limit(limit)))
    held = (
        select(func.count())
        .select_from(Assignment)
        .join(Item, Assignment.item_id == Item.id)
        .where(Assignment.annotator_id == rater.id, Item.batch_id == batch.id)
    )
    # Raters start their count at different places: they must not tell each other which one is known.
    place = (session.scalar(held) or 0) + zlib.crc32(rater.name.encode())
    chosen: list[Item] = []
    while items and len(chosen) < limit:
        due = (place + len(chosen)) % batch.gold_every == 0
        chosen.append(golden.pop(0) if due and golden else items.pop(0))
    return chosen


def _unseen(batch: Batch, annotator_id: int) -> Select[tuple[Item]]:
    seen = select(Assignment.id).where(Assignment.item_id == Item.id, Assignment.annotator_id == annotator_id)
    return select(Item).where(Item.batch_id == batch.id, ~seen.exists())


def _expire(session: Session, batch: Batch) -> bool:
    """Give on the places of assignments that nobody has answered in time."""
    late = (
        select(Assignment.id, Assignment.item_id)
        .join(Item, Assignment.item_id == Item.id)
        .where(
            Item.batch_id == batch.id,
            Assignment.state == "open",
            Assignment.assigned_at < now() - LEASE_SECONDS,
        )
    )
    found = session.execute(late).all()
    for assignment_id, item_id in found:
        session.execute(
            update(Assignment).where(Assignment.id == assignment_id).values(state="expired"),
            execution_options=PLAIN,
        )
        session.execute(
            update(Item).where(Item.id == item_id).values(taken=Item.taken - 1), execution_options=PLAIN
        )
    session.expire_all()
    return bool(found)


def _take(session: Session, batch: Batch, rater: Annotator, chosen: list[Item]) -> Served:
    if not chosen:
        return []
    taken = [
        Assignment(
            item_id=item.id,
            annotator_id=rater.id,
            order=shuffled(item.position, len(item.responses), batch.seed, rater.name),
            state="open",
            attempt=0,
            assigned_at=now(),
        )
        for item in chosen
    ]
    session.add_all(taken)
    session.flush()
    ids = [item.id for item in chosen]
    # The items stay as they were read: nobody looks at their counters in this transaction any more.
    session.execute(
        update(Item).where(Item.id.in_(ids)).values(taken=Item.taken + 1), execution_options=PLAIN
    )
    return list(zip(taken, chosen, strict=True))


def shuffled(position: int, size: int, seed: int, rater: str) -> list[int]:
    """Return the order in which a rater sees the responses of an item: `order[place]` is a response's index."""
    order = list(range(size))
    random.Random(f"order {seed} {rater} {position}").shuffle(order)
    return order
