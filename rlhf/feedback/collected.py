"""The rankings of a batch as a table."""

from typing import NamedTuple

import polars as pl
from sqlalchemy import select

from rlhf.feedback.database import Feedback
from rlhf.feedback.schema import Annotator, Assignment, Item, Message, Ranking
from schemas.tables import polars_schema


class Standing(NamedTuple):
    """An answer that stands: neither undone nor superseded."""

    position: int
    prompt_id: str
    rater: str
    rater_id: int
    excluded: bool
    gold: list[int | None] | None
    ranks: list[int | None] | None
    flags: list[list[str]]
    order: list[int]
    skip_reason: str | None
    seconds: float | None
    created_at: float


def standing(feedback: Feedback, batch_id: int) -> list[Standing]:
    """Return every answer to a batch that stands, gold questions and excluded raters included."""
    wanted = (
        select(
            Item.position, Item.prompt_id, Annotator.name, Annotator.id, Annotator.excluded_at, Item.gold,
            Ranking.ranks, Ranking.flags, Assignment.order, Ranking.skip_reason, Ranking.seconds, Ranking.created_at,
        )
        .join(Assignment, Ranking.assignment_id == Assignment.id)
        .join(Item, Assignment.item_id == Item.id)
        .join(Annotator, Assignment.annotator_id == Annotator.id)
        .where(Item.batch_id == batch_id, Ranking.undone_at.is_(None))
    )  # fmt: skip
    with feedback.read() as session:
        rows = session.execute(wanted).all()
    found = [Standing._make((*row[:4], row[4] is not None, *row[5:])) for row in rows]
    # Two machines name the same raters and positions alike, and number them differently.
    return sorted(found, key=lambda answer: (answer.position, answer.rater))


def items(feedback: Feedback, batch_id: int) -> dict[int, tuple[list[Message], list[str], list[bool]]]:
    """Return conversation, responses and whether each ended by itself, by position."""
    wanted = select(Item.position, Item.prompt, Item.responses, Item.finished).where(
        Item.batch_id == batch_id
    )
    with feedback.read() as session:
        return {
            place: (prompt, responses, ended) for place, prompt, responses, ended in session.execute(wanted)
        }


def rankings(feedback: Feedback, batch_id: int) -> pl.DataFrame:
    """Return the table `rankings` of a batch: what stands, without gold questions and excluded raters."""
    known = items(feedback, batch_id)
    rows = []
    for answer in standing(feedback, batch_id):
        if answer.ranks is None or answer.gold is not None or answer.excluded:
            continue
        prompt, responses, finished = known[answer.position]
        rows.append((answer.prompt_id, prompt, responses, finished, answer.rater, answer.ranks))
    return pl.DataFrame(rows, schema=polars_schema("rankings"), orient="row")
