"""Publish what is to be ranked, and close it."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from rlhf.feedback.database import Feedback, now
from rlhf.feedback.schema import Annotator, Assignment, Batch, Item
from schemas.errors import NotFound


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a batch is to be ranked."""

    name: str
    guidelines: str = ""
    simulated: bool = False
    overlap: int = 1
    """Raters per item."""
    quota: float = 1.0
    """Share of the wanted rankings that closes the batch."""
    gold_every: int = 0
    """One of so many items of a rater is a gold question; 0: none."""
    seed: int = 0
    flow_run_id: str | None = None
    """The flow run that waits for the batch."""


def publish(
    feedback: Feedback, key: str, candidates: pl.DataFrame, plan: Plan, gold: pl.DataFrame | None = None
) -> Batch:
    """Write a batch with its items, or return the one that was made from the same; gold questions are apart.

    `candidates` has the columns of that table; `gold` those and `ranks`.
    """
    with feedback.write() as session:
        if found := session.scalar(select(Batch).where(Batch.key == key)):
            if found.closed_at is None:
                _follow(session, found, plan)
            return found
        batch = Batch(
            key=key,
            name=plan.name,
            guidelines=plan.guidelines.replace("\0", ""),
            simulated=plan.simulated,
            overlap=plan.overlap,
            quota=max(1, round(plan.quota * plan.overlap * candidates.height)),
            gold_every=plan.gold_every if gold is not None and gold.height else 0,
            seed=plan.seed,
            answered=0,
            flow_run_id=plan.flow_run_id,
            created_at=now(),
        )
        session.add(batch)
        session.flush()
        rows = [*_rows(candidates), *(_rows(gold) if gold is not None else ())]
        items = [
            {**row, "batch_id": batch.id, "position": place, "taken": 0} for place, row in enumerate(rows)
        ]
        session.execute(insert(Item), items)
        return batch


def _follow(session: Session, batch: Batch, plan: Plan) -> None:
    """Let an open batch follow a plan that has changed since it was published; its items stay."""
    batch.guidelines, batch.overlap = plan.guidelines.replace("\0", ""), plan.overlap
    batch.quota = max(1, round(plan.quota * plan.overlap * size(session, batch.id)))
    if plan.flow_run_id and batch.flow_run_id != plan.flow_run_id:
        batch.flow_run_id, batch.resumed_at = plan.flow_run_id, None
    if batch.answered >= batch.quota:
        batch.closed_at, batch.closed_by = now(), "quota"


def _rows(frame: pl.DataFrame) -> list[dict[str, object]]:
    return [
        {
            "prompt_id": row["prompt_id"],
            "prompt": row["prompt"],
            "responses": row["responses"],
            "finished": row["finished"],
            "gold": row.get("ranks"),
        }
        for row in frame.iter_rows(named=True)
    ]


def find(feedback: Feedback, which: str) -> Batch:
    """Return the batch of an id, or the newest with a name or key."""
    with feedback.read() as session:
        by_id = session.get(Batch, int(which)) if which.isascii() and which.isdigit() else None
        wanted = select(Batch).where((Batch.name == which) | (Batch.key == which)).order_by(Batch.id.desc())
        found = by_id or session.scalar(wanted.limit(1))
        known = session.scalars(select(Batch.name).order_by(Batch.id.desc()).limit(10)).all()
    if found is None:
        raise NotFound(f"No batch {which!r}; the newest are: {', '.join(known) or 'none yet'}.")
    return found


def by_key(feedback: Feedback, key: str) -> Batch | None:
    """Return the batch that was made from this, if there is one."""
    with feedback.read() as session:
        return session.scalar(select(Batch).where(Batch.key == key))


def listed(feedback: Feedback, *, simulated: bool | None = None) -> Sequence[Batch]:
    """Return the batches, newest first."""
    wanted = select(Batch).order_by(Batch.id.desc())
    if simulated is not None:
        wanted = wanted.where(Batch.simulated == simulated)
    with feedback.read() as session:
        return session.scalars(wanted).all()


def closed(feedback: Feedback) -> Sequence[Batch]:
    """Return the closed batches, in the order in which they closed."""
    wanted = select(Batch).where(Batch.closed_at.is_not(None)).order_by(Batch.closed_at, Batch.id)
    with feedback.read() as session:
        return session.scalars(wanted).all()


def ranked_by_people(feedback: Feedback, *, until: Batch) -> int:
    """Return how many rankings people had given in the batches that were closed by the time `until` was."""
    earlier = (Batch.closed_at < until.closed_at) | (
        (Batch.closed_at == until.closed_at) & (Batch.id <= until.id)
    )
    counted = select(func.sum(Batch.answered)).where(Batch.simulated.is_(False), earlier)
    with feedback.read() as session:
        return session.scalar(counted) or 0


def size(session: Session, batch_id: int) -> int:
    """Return how many items a batch has, gold questions left out."""
    counted = select(func.count()).select_from(Item).where(Item.batch_id == batch_id, Item.gold.is_(None))
    return session.scalar(counted) or 0


def close(feedback: Feedback, batch_id: int, by: str) -> Batch:
    """Close a batch for good; closing it again changes nothing."""
    with feedback.write() as session:
        closing = update(Batch).where(Batch.id == batch_id, Batch.closed_at.is_(None))
        session.execute(closing.values(closed_at=now(), closed_by=by))
        return session.get_one(Batch, batch_id, populate_existing=True)


def waiting_to_resume(feedback: Feedback) -> Sequence[Batch]:
    """Return the closed batches whose flow run has not been told yet."""
    wanted = select(Batch).where(
        Batch.closed_at.is_not(None), Batch.flow_run_id.is_not(None), Batch.resumed_at.is_(None)
    )
    with feedback.read() as session:
        return session.scalars(wanted).all()


def mark_resumed(feedback: Feedback, batch_id: int) -> None:
    """Note that the flow run of a closed batch goes on."""
    with feedback.write() as session:
        session.execute(update(Batch).where(Batch.id == batch_id).values(resumed_at=now()))


def recount(session: Session) -> None:
    """Count taken places and rankings of the open batches anew, after a rater was excluded or restored.

    What an excluded rater answered no longer fills a place, so that somebody else is asked.
    """
    counts = Annotator.excluded_at.is_(None) & Assignment.state.in_(("open", "ranked"))
    taken = (
        select(func.count())
        .select_from(Assignment)
        .join(Annotator, Assignment.annotator_id == Annotator.id)
        .where(Assignment.item_id == Item.id, counts)
        .scalar_subquery()
    )
    answered = (
        select(func.count())
        .select_from(Assignment)
        .join(Annotator, Assignment.annotator_id == Annotator.id)
        .join(Item, Assignment.item_id == Item.id)
        .where(
            Item.batch_id == Batch.id,
            Item.gold.is_(None),
            Assignment.state == "ranked",
            Annotator.excluded_at.is_(None),
        )
        .scalar_subquery()
    )
    still_open = select(Batch.id).where(Batch.closed_at.is_(None))
    session.execute(select(Batch.id).where(Batch.closed_at.is_(None)).with_for_update())
    settings = {"synchronize_session": False}
    session.execute(
        update(Item).where(Item.batch_id.in_(still_open)).values(taken=taken), execution_options=settings
    )
    session.execute(
        update(Batch).where(Batch.closed_at.is_(None)).values(answered=answered), execution_options=settings
    )
