"""The feedback database: who was asked what, in which order it was shown, and what they answered.

Nothing is ever deleted: an undone ranking, an excluded rater and a revoked token are marked with the time.
Times are seconds since the epoch. Conversations and responses lie in JSON columns, which escape what a text
column of PostgreSQL refuses (NUL, lone surrogates).
"""

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, MetaData, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Message = dict[str, str]


class Base(DeclarativeBase):
    """Names every constraint, so that a migration can name it again on either database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it once
        list[Message]: JSON,
        list[str]: JSON,
        list[bool]: JSON,
        list[int]: JSON,
        list[int | None]: JSON(none_as_null=True),
        list[list[str]]: JSON,
        dict[str, Any]: JSON,
    }


class Annotator(Base):
    """Somebody who answers: a person with a token, or a simulated rater without one."""

    __tablename__ = "annotators"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    """`rater`, `admin` or `simulated`."""
    token_id: Mapped[str | None] = mapped_column(unique=True)
    """The public half of the token, by which its hash is found."""
    token_hash: Mapped[str | None]
    """scrypt of the secret half, with its salt."""
    created_at: Mapped[float]
    revoked_at: Mapped[float | None]
    excluded_at: Mapped[float | None]
    """Rankings of an excluded rater stay, and count again once the exclusion is lifted."""
    excluded_because: Mapped[str | None]


class Batch(Base):
    """Items that are ranked together, until the quota is reached or an admin closes it."""

    __tablename__ = "batches"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    """What it was made from; to publish the same again is to find it."""
    name: Mapped[str]
    guidelines: Mapped[str]
    simulated: Mapped[bool]
    overlap: Mapped[int]
    """Raters per item."""
    quota: Mapped[int]
    """Rankings that close the batch."""
    gold_every: Mapped[int]
    """One of so many items of a rater is a gold question; 0: none."""
    seed: Mapped[int]
    answered: Mapped[int]
    """Rankings of items that are no gold questions."""
    flow_run_id: Mapped[str | None]
    """The flow run that is suspended until the batch closes."""
    resumed_at: Mapped[float | None]
    created_at: Mapped[float]
    closed_at: Mapped[float | None]
    closed_by: Mapped[str | None]


class Item(Base):
    """A conversation and the responses to rank."""

    __tablename__ = "items"
    __table_args__ = (
        UniqueConstraint("batch_id", "position"),
        Index("ix_items_queue", "batch_id", "taken", "position"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"))
    position: Mapped[int]
    """Place in the batch; the first is served first."""
    prompt_id: Mapped[str]
    prompt: Mapped[list[Message]]
    responses: Mapped[list[str]]
    finished: Mapped[list[bool]]
    gold: Mapped[list[int | None] | None]
    """Known ranks of a gold question; such an item is for every rater, and no training data."""
    taken: Mapped[int]
    """Assignments that are open or answered with a ranking."""


class Assignment(Base):
    """One item for one rater, once."""

    __tablename__ = "assignments"
    __table_args__ = (
        UniqueConstraint("item_id", "annotator_id"),
        Index("ix_assignments_rater", "annotator_id", "state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    order: Mapped[list[int]]
    """`order[place]` is the index of the response shown there."""
    state: Mapped[str]
    """`open`, `expired` (its place was given on, an answer is still welcome), `ranked` or `skipped`."""
    attempt: Mapped[int]
    """Counts the answers; an answer that names another attempt is a repetition."""
    assigned_at: Mapped[float]


class Ranking(Base):
    """An answer: ranks in the order of the item's responses, or the reason for giving none."""

    __tablename__ = "rankings"
    __table_args__ = (
        UniqueConstraint("assignment_id", "attempt"),
        Index(
            "ix_rankings_standing",
            "assignment_id",
            unique=True,
            sqlite_where=text("undone_at IS NULL"),
            postgresql_where=text("undone_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignments.id"))
    attempt: Mapped[int]
    ranks: Mapped[list[int | None] | None]
    """1 is best, equal is a tie, null was not ranked; no ranks at all: skipped."""
    flags: Mapped[list[list[str]]]
    """What the rater marked each response with."""
    skip_reason: Mapped[str | None]
    seconds: Mapped[float | None]
    """From the first sight to the answer."""
    created_at: Mapped[float]
    undone_at: Mapped[float | None]


class Thumb(Base):
    """One response and whether somebody liked it, given with consent (unpaired feedback)."""

    __tablename__ = "thumbs"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    """Makes a repetition harmless."""
    prompt_id: Mapped[str]
    prompt: Mapped[list[Message]]
    response: Mapped[list[str]]
    """One text; JSON, because a text column of PostgreSQL takes no NUL."""
    label: Mapped[bool]
    rater: Mapped[str]
    model: Mapped[str]
    consent: Mapped[str]
    """The sentence that the person agreed to."""
    created_at: Mapped[float]
