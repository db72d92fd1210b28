"""Prompts that another file holds too, up to case, punctuation and small changes."""

import polars as pl

from rlhf.data.canonical import first_questions
from rlhf.data.ledger import Ledger
from rlhf.data.near import signatures, similar_to_earlier


def leaked(known: pl.Series, asked: pl.Series) -> pl.Series:
    """Tell for each question whether it is the same as, or nearly the same as, a known one."""
    known = known.unique(maintain_order=True)
    found = similar_to_known(known, asked)
    return pl.Series("leaked", found, dtype=pl.Boolean)


def similar_to_known(known: pl.Series, asked: pl.Series) -> list[bool]:
    """Return for each question whether one of the known ones is similar."""
    distinct = asked.unique(maintain_order=True)
    together = pl.concat([known.cast(pl.String).rename("text"), distinct.cast(pl.String).rename("text")])
    match = similar_to_earlier(signatures(together))
    hit = [place >= 0 for place in match[known.len() :]]
    # The earlier text that a question is similar to may be another question: then it is that one's answer.
    for position in range(len(hit)):
        earlier = int(match[known.len() + position])
        if earlier >= known.len():
            hit[position] = hit[earlier - known.len()]
    answer = dict(zip(distinct.to_list(), hit, strict=True))
    return [answer[text] for text in asked.to_list()]


def staged_questions(ledger: Ledger) -> pl.Series:
    """Return the first question of every row that was staged, in order."""
    if "_prompt" not in ledger.index.columns or not ledger.staged:
        return pl.Series("question", [], dtype=pl.String)
    return pl.concat([first_questions(pl.read_ipc(path)) for path, _ in ledger.staged])


def check_leakage(ledger: Ledger, known: pl.Series) -> None:
    """Quarantine rows whose first question is among those of other files."""
    asked = staged_questions(ledger)
    if not asked.len() or not known.len():
        return
    mask = leaked(known, asked.gather(ledger.index["_at"]))
    ledger.set_aside(mask, "leakage", "prompt", "another file of this run holds the same prompt")
