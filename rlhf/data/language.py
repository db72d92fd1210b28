"""The language of texts, where they are long enough to tell."""

from functools import cache
from typing import TYPE_CHECKING

import polars as pl

from rlhf.data.canonical import RESPONSES
from rlhf.data.ledger import Ledger
from rlhf.data.questions import first_questions
from rlhf.data.records import Found

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_SHORTEST = 40
_LOOKED_AT = 400
_ROWS = 1_000
_SURE = 0.9


@cache
def identifier() -> "LanguageIdentifier":
    """Return the classifier; half a second the first time."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def check_language(ledger: Ledger, languages: tuple[str, ...]) -> None:
    """Name the rows (of the first thousand of the sample) that are not in one of the languages."""
    if not languages or not ledger.sample.height or ledger.rules["language_mismatch"].level == "off":
        return
    sample = ledger.sample.head(_ROWS)
    texts = _texts(ledger, sample)
    other = [_other(text, languages) for text in texts.to_list()]
    rows = [row for row, found in zip(sample["_row"], other, strict=True) if found]
    for (row, line), found in zip(sample.select("_row", "_line").iter_rows(), other, strict=True):
        if found:
            message = f"the text seems to be in {found!r}, not in {', '.join(languages)}"
            ledger.notes.append(Found("language_mismatch", message, row, line))
    share = len(rows) / sample.height
    ledger.statistics["other_language"] = share
    if share:
        message = f"{share:.1%} of {sample.height} rows are not in {', '.join(languages)} (data.languages)"
        ledger.measure("language_mismatch", share, message)


def _texts(ledger: Ledger, sample: pl.DataFrame) -> pl.Series:
    columns = [pl.col(name).str.head(_LOOKED_AT) for name in RESPONSES[ledger.kind]]
    if "prompt" in sample.columns:
        sample = sample.with_columns(first_questions(sample).alias("_question"))
        columns.insert(0, pl.col("_question").str.head(_LOOKED_AT))
    return sample.select(pl.concat_str(columns, separator="\n").alias("text")).to_series()


def _other(text: str, languages: tuple[str, ...]) -> str | None:
    """Return the language of a text if it is surely none of those wanted."""
    if len(text) < _SHORTEST and text.isascii():
        return None
    found, sure = identifier().classify(text)
    return found if found not in languages and sure > _SURE else None
