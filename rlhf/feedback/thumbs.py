"""Thumbs up or down on single responses, kept only with consent: unpaired feedback, as KTO takes it."""

import hashlib
import json

import polars as pl
from sqlalchemy import select

from rlhf.feedback.database import Feedback, now
from rlhf.feedback.schema import Thumb
from schemas.errors import AnswerRefused
from schemas.tables import polars_schema


def record(
    feedback: Feedback,
    *,
    prompt: list[dict[str, str]],
    response: str,
    label: bool,
    rater: str,
    model: str,
    consent: str,
    occasion: str,
) -> bool:
    """Keep one judgement; the same one of the same occasion is kept once (False: it was there).

    `consent` is the sentence that the person agreed to; without it nothing is written.
    """
    if not consent.strip():
        raise AnswerRefused("There is no consent to keep this judgement; ask for it first.")
    what = [prompt, response, rater, model, occasion]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    with feedback.write() as session:
        if session.scalar(select(Thumb.id).where(Thumb.key == key)) is not None:
            return False
        session.add(
            Thumb(
                key=key,
                prompt_id=hashlib.sha256(json.dumps(prompt).encode()).hexdigest()[:16],
                prompt=prompt,
                response=[response],
                label=label,
                rater=rater,
                model=model,
                consent=consent,
                created_at=now(),
            )
        )
    return True


def table(feedback: Feedback) -> pl.DataFrame:
    """Return all judgements as the table `feedback`, oldest first."""
    wanted = select(Thumb.prompt_id, Thumb.prompt, Thumb.response, Thumb.rater, Thumb.label).order_by(
        Thumb.id
    )
    with feedback.read() as session:
        rows = [
            (prompt_id, prompt, response[0], rater, label, None)
            for prompt_id, prompt, response, rater, label in session.execute(wanted)
        ]
    return pl.DataFrame(rows, schema=polars_schema("feedback"), orient="row")
