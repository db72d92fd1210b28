"""The rules on the way from a file to a canonical table: row by row, then over the whole file."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandera.errors
import polars as pl

from rlhf.data import bias, duplicates, layouts
from rlhf.data.conversation import Message
from rlhf.data.readers import open_source
from rlhf.data.records import Limits, Refused, Row, refuse
from rlhf.data.rules import FORMULA, REJECT_ABOVE, RULES, SHARES_COUNT_FROM, Rule, apply_rules
from rlhf.data.splits import prompt_id
from schemas.reports import Finding
from schemas.tables import TABLES, Kind, polars_schema

_SAMPLE = 1_000
_BATCH = 4_096
_SHOWN = 300
_PLACE = {"_row": pl.Int64, "_line": pl.Int64, "_id": pl.String, "_sha1": pl.String, "_text": pl.String}


@dataclass(slots=True)
class Refusal:
    """A row in quarantine: what is wrong with it, the digest of its bytes, and its beginning, escaped."""

    sha1: str
    text: str
    findings: list[Finding]


@dataclass(slots=True)
class Checked:
    """A file on its way through the rules: rows == kept + quarantined + dropped at every step."""

    kind: Kind
    frame: pl.DataFrame
    """The canonical rows that are still good, with columns `_row`, `_line`, `_id`, `_sha1`, `_text` of their records."""
    layout: str = "unknown"
    rows: int = 0
    dropped: int = 0
    rejected: bool = False
    notes: list[Finding] = field(default_factory=list)
    """Findings on the file, and those that cost no row."""
    quarantine: dict[int, Refusal] = field(default_factory=dict)
    statistics: dict[str, float] = field(default_factory=dict)

    def public(self) -> pl.DataFrame:
        """Return the canonical table."""
        return self.frame.drop(list(_PLACE))

    def set_aside(self, rows: Iterable[int], kind: str, where: str | None, message: str) -> None:
        """Move rows from the table to quarantine."""
        chosen = self.frame.filter(pl.col("_row").is_in(list(rows))).unique("_row", maintain_order=True)
        for row, line, sha1, text in chosen.select("_row", "_line", "_sha1", "_text").iter_rows():
            found = Finding(kind=kind, row=row, line=line, field=where, message=message)
            self.quarantine.setdefault(row, Refusal(sha1, text, [])).findings.append(found)
        self.frame = self.frame.filter(~pl.col("_row").is_in(chosen["_row"].implode()))

    def note_rows(self, rows: Iterable[int], kind: str, where: str | None, message: str) -> None:
        """Name rows without taking them away."""
        lines = dict(self.frame.select("_row", "_line").iter_rows())
        self.notes += [
            Finding(kind=kind, row=r, line=lines.get(r), field=where, message=message) for r in rows
        ]


def check_rows(path: Path, kind: Kind, limits: Limits) -> Checked:
    """Read all rows of a file and apply the row rules; a file that cannot be used comes back rejected."""
    schema = pl.Schema({**polars_schema(kind), **_PLACE})
    checked = Checked(kind, pl.DataFrame(schema=schema))
    try:
        opened = open_source(path, limits)
        sample = list(itertools.islice(opened.rows, _SAMPLE))
        if not sample:
            raise refuse("no_rows", "the file is readable and holds no data row")
        checked.rows = len(sample)
        checked.layout = opened.format
        layout = layouts.detect(sample, kind)
        checked.layout = f"{layout.name}, {opened.format}"
        checked.rows = 0
        rules = (*RULES, FORMULA) if opened.format.startswith("CSV") else RULES
        frames = []
        for batch in _batches(itertools.chain(sample, opened.rows)):
            checked.rows += len(batch)
            frames.append(pl.DataFrame(_read_batch(batch, layout, checked, rules), schema=schema))
        checked.frame = pl.concat(frames)
        checked.notes = [*opened.notes, *checked.notes]
    except Refused as refused:
        checked.rejected = True
        checked.notes += refused.findings
    return checked


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, _BATCH)):
        yield batch


def _read_batch(
    batch: list[Row], layout: layouts.Layout, checked: Checked, rules: tuple[Rule, ...]
) -> list[dict[str, object]]:
    """Return the canonical rows of the good records of a batch; note or quarantine the rest."""
    read = [layouts.read(row, layout, checked.kind) if row.value else ([], []) for row in batch]
    apply_rules([(row, texts) for row, (_, texts) in zip(batch, read, strict=True)], rules)
    good: list[dict[str, object]] = []
    for row, (canonical, _) in zip(batch, read, strict=True):
        if not canonical and not row.fatal:
            row.found("missing_field", None, "no row of the wanted kind can be made of this record")
        place = {
            "_row": row.row,
            "_line": row.line,
            "_sha1": row.sha1(),
            "_text": ascii(row.raw[:_SHOWN])[2:-1],
        }
        if row.fatal:
            checked.quarantine[row.row] = Refusal(str(place["_sha1"]), str(place["_text"]), row.findings)
            continue
        checked.notes += row.findings
        name = row.value.get("id", row.value.get("uid"))
        place["_id"] = str(name) if isinstance(name, str | int) else None
        for values in canonical:
            turns = values.get("prompt")
            if isinstance(turns, list):
                messages: list[Message] = turns
                values["prompt_id"] = prompt_id(messages)
            good.append({**values, **place})
    return good


def check_repeats(checked: Checked, votes: Literal["drop", "count"]) -> None:
    """Apply the rules on repeated and contradictory rows."""
    before = checked.frame
    kept, repeated, contradicting = duplicates.resolve_repeats(before, checked.kind, votes)
    message = "the same pair occurs with the opposite label, and not less often"
    checked.set_aside(contradicting, "contradictory_pair", "chosen/rejected", message)
    checked.note_rows(repeated, "exact_duplicate", "", "an earlier row says the same; the first one is kept")
    checked.frame = kept
    left = set(kept["_row"].to_list())
    checked.dropped = len(set(repeated) - left - checked.quarantine.keys())
    near = duplicates.near_duplicates(kept, checked.kind)
    checked.note_rows(near, "near_duplicate", "", "an earlier row differs in case, punctuation or space only")
    again = duplicates.repeated_ids(kept)
    checked.note_rows(again, "duplicate_id", "id", "an earlier, different row has the same id")


def check_contract(checked: Checked) -> None:
    """Hold the table against its pandera model; rows that the rules let through wrongly go to quarantine."""
    try:
        TABLES[checked.kind].validate(checked.public(), lazy=True)
    except pandera.errors.SchemaErrors as errors:
        rows = checked.frame["_row"]
        for check, index in errors.failure_cases.select("check", "index").iter_rows():
            if index is None:
                raise
            checked.set_aside(
                [rows[index]], "schema_type", None, f"the row fails the check {check!r} of its table"
            )


def check_leakage(checked: Checked, questions: pl.Series) -> None:
    """Quarantine rows whose first question is among those of other files."""
    rows = duplicates.leaked(checked.frame, questions)
    checked.set_aside(rows, "leakage", "prompt", "another file of this run holds the same prompt")


def check_file(checked: Checked, *, allow_constant: bool) -> None:
    """Apply the rules on the file as a whole."""
    frame, rows = checked.frame, checked.rows
    for column in ("chosen", "rejected", "response"):
        if column in frame.columns and frame.height:
            share, found = bias.constant_responses(frame, column)
            checked.statistics[f"most_frequent_{column}"] = share
            checked.notes += found
            checked.rejected |= share > 0.3 and rows >= SHARES_COUNT_FROM and not allow_constant
            checked.statistics[f"mean_words_{column}"] = float(
                frame.select(pl.col(column).str.count_matches(r"\S+").mean()).item()
            )
    if checked.kind == "preferences":
        statistics, found = bias.length_bias(frame)
        checked.statistics.update(statistics)
        checked.notes += [*found, *bias.label_marks(frame)]
    one_label = (
        checked.kind == "feedback"
        and frame.height > 1
        and frame["label"].drop_nulls().n_unique() == 1
        and frame["score"].null_count() == frame.height
    )
    if one_label:
        checked.notes.append(Finding(kind="single_class", field="label", message="all labels are the same"))
        checked.rejected = True
    spoiled = Counter(
        kind for refusal in checked.quarantine.values() for kind in {f.kind for f in refusal.findings}
    )
    spoiled["exact_duplicate"] = checked.dropped
    for kind, share in REJECT_ABOVE.items():
        if rows >= SHARES_COUNT_FROM and spoiled[kind] > share * rows:
            message = (
                f"{kind} in {spoiled[kind]} of {rows} rows: more than {share:.0%} makes the file suspect"
            )
            checked.notes.append(Finding(kind=kind, message=message))
            checked.rejected = True
    if rows and not frame.height:
        checked.notes.append(Finding(kind="no_rows", message="no row is left after the row rules"))
        checked.rejected = True
