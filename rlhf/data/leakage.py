"""Prompts that another file holds too, up to case, punctuation and small changes."""

import polars as pl

from rlhf.data.ledger import Ledger
from rlhf.data.near import signatures, similar_to_earlier
from rlhf.data.questions import first_questions


def leaked(known: pl.Series, asked: pl.Series) -> pl.Series:
    """Tell for each question whether it is the same as, or nearly the same as, a known one."""
    known = known.unique(maintain_order=True).cast(pl.String)
    distinct = asked.unique(maintain_order=True).cast(pl.String)
    match = similar_to_earlier(signatures(pl.concat([known.rename("text"), distinct.rename("text")])))
    hit: dict[str, bool] = {}
    for place, text in enumerate(distinct, known.len()):
        earlier = int(match[place])
        # What it is similar to may be another question of the same table: then that one's answer is its own.
        hit[text] = 0 <= earlier < known.len() or (earlier >= 0 and hit[distinct[earlier - known.len()]])
    return pl.Series("leaked", [hit[text] for text in asked], dtype=pl.Boolean)


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
