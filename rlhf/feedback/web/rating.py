"""What a rater sees: the open batches, and one item at a time."""

from collections.abc import Mapping
from dataclasses import replace

from fastapi import APIRouter, BackgroundTasks, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rlhf.feedback import answers, batches
from rlhf.feedback.answers import Answer
from rlhf.feedback.assigning import assign_in
from rlhf.feedback.database import now
from rlhf.feedback.schema import Assignment, Batch, Item
from rlhf.feedback.web.requests import Fields, Visit, Visiting, render, signed
from schemas.errors import AnswerRefused, NotFound

router = APIRouter()


@router.get("/", response_model=None)
def home(visit: Visiting) -> Response:
    """List the open batches."""
    found = [batch for batch in batches.listed(visit.site.feedback, simulated=False) if not batch.closed_at]
    return render("home.html.j2", {"batches": found, **signed(visit)})


@router.get("/batch/{batch_id}", response_model=None)
def item(batch_id: int, visit: Visiting) -> Response:
    """Show the item that waits for this rater's answer, or the next one."""
    with visit.site.feedback.write() as session:
        shown = _next(session, batch_id, visit)
    return render("rate.html.j2", shown)


@router.post("/batch/{batch_id}/answer", response_model=None)
def answer(
    batch_id: int, request: Request, visit: Visiting, fields: Fields, after: BackgroundTasks
) -> Response:
    """Take a ranking or a skip, and show the next item."""
    notice = ""
    with visit.site.feedback.write() as session:
        mine = answers.known(session, visit.annotator.id, [_number(fields, "assignment")])
        if not answers.submit_in(session, mine, [_answer(mine, fields)]):
            notice = "This item had been answered already; the first answer stands."
        shown = _next(session, batch_id, visit, notice)
    batch: Batch = shown["batch"]  # type: ignore[assignment]
    if batch.closed_at is not None:
        after.add_task(request.app.state.on_closed)
    return _fragment(request, shown)


@router.post("/batch/{batch_id}/undo", response_model=None)
def undo(batch_id: int, request: Request, visit: Visiting, fields: Fields) -> Response:
    """Take back this rater's last answer and show that item again."""
    undone = answers.undo(visit.site.feedback, batch_id, visit.annotator.id)
    notice = "Your last answer is taken back." if undone else "There is no answer to take back."
    with visit.site.feedback.write() as session:
        shown = _next(session, batch_id, visit, notice)
    return _fragment(request, shown)


def _fragment(request: Request, shown: dict[str, object]) -> Response:
    if "hx-request" in request.headers:
        return render("card.html.j2", shown)
    batch: Batch = shown["batch"]  # type: ignore[assignment]
    return RedirectResponse(f"/batch/{batch.id}", 303)


def _next(session: Session, batch_id: int, visit: Visit, notice: str = "") -> dict[str, object]:
    """Return what the page of the next item shows."""
    mine = (
        select(func.count())
        .select_from(Assignment)
        .join(Item, Assignment.item_id == Item.id)
        .where(
            Item.batch_id == batch_id,
            Assignment.annotator_id == visit.annotator.id,
            Assignment.state.in_(("ranked", "skipped")),
        )
        .scalar_subquery()
    )
    found = session.execute(
        select(Batch, mine).where(Batch.id == batch_id), execution_options={"populate_existing": True}
    ).one_or_none()
    if found is None or found[0].simulated:
        raise NotFound("There is no such batch; go back to the list.")
    batch, answered = found
    served = assign_in(session, batch_id, visit.annotator.id) if batch.closed_at is None else ()
    assignment, shown = served[0] if served else (None, None)
    return {
        **signed(visit),
        "batch": batch,
        "assignment": assignment,
        "item": shown,
        "responses": [shown.responses[index] for index in assignment.order] if shown and assignment else [],
        "mine": answered,
        "notice": notice,
        "flags": answers.FLAGS,
        "reasons": answers.SKIP_REASONS,
    }


def _answer(mine: answers.Known, fields: Mapping[str, list[str]]) -> Answer:
    """Read the form; the page counts responses as they were shown, the store as they were sampled."""
    if not mine:
        raise AnswerRefused("This item is not yours; reload the page.")
    ((assignment, _, _),) = mine.values()
    order, size = assignment.order, len(assignment.order)
    taken = min(max(_seconds(fields), 0.0), max(now() - assignment.assigned_at, 0.0))
    given = Answer(assignment_id=assignment.id, attempt=_number(fields, "attempt"), seconds=taken)
    flags: list[tuple[str, ...]] = [()] * size
    for place, index in enumerate(order):
        flags[index] = tuple(dict.fromkeys(fields.get(f"flag-{place}", [])))
    given = replace(given, flags=tuple(flags))
    if reason := fields.get("skip", [""])[0]:
        return replace(given, skip_reason=reason)
    shown = fields.get("ranks", [""])[0].split(",")
    if len(shown) != size or not all(rank == "" or (rank.isascii() and rank.isdigit()) for rank in shown):
        raise AnswerRefused(f"Ranks {','.join(shown)[:40]!r} for {size} responses; reload the page.")
    ranks: list[int | None] = [None] * size
    for place, index in enumerate(order):
        ranks[index] = int(shown[place]) if shown[place] else None
    return replace(given, ranks=tuple(ranks))


def _number(fields: Mapping[str, list[str]], name: str) -> int:
    value = fields.get(name, [""])[0]
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise AnswerRefused(f"The field {name} is no number; reload the page.")
    return int(value)


def _seconds(fields: Mapping[str, list[str]]) -> float:
    try:
        return float(fields.get("seconds", [""])[0])
    except ValueError:
        return float("inf")
