"""The work on a batch of records, which can be done in another process: read, check, build the table."""

import gc
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandera.errors
import polars as pl

from rlhf.data import detection
from rlhf.data.canonical import PLACE, index_of, ratings_of, repaired_table, table_of, whole_texts
from rlhf.data.detection import Plan
from rlhf.data.layouts_pairs import Canonical
from rlhf.data.parsing import Parser, read_row
from rlhf.data.readers_lines import Lines
from rlhf.data.records import SHOWN, Found, Limits, Records, Row
from rlhf.data.rules import REPAIRS, apply_text_rules, repaired
from schemas.config.rules import Rule
from schemas.tables import TABLES, Kind

if TYPE_CHECKING:
    from rlhf.data.near import Signatures

SAMPLE = 4_000
"""Rows whose texts are kept for the measures that need texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """The rules and limits of a validation."""

    rules: Mapping[str, Rule]
    limits: Limits
    repair: tuple[str, ...] = ()
    near_duplicates: bool = True


class Batch(NamedTuple):
    """Records of one file, and what to do with them."""

    plan: Plan
    checks: Checks
    first: int
    """Number of the first record among all that were read."""
    records: Records | Lines
    staged: Path | None
    """Where the table goes; None: nowhere."""
    starts_file: bool


@dataclass(slots=True)
class Refusal:
    """A record in quarantine: what is wrong with it, its digest, and its beginning, escaped and masked."""

    sha1: str
    text: str
    findings: list[Found]


@dataclass(slots=True)
class Processed:
    """What came of a batch."""

    rows: int
    index: pl.DataFrame
    sample: pl.DataFrame
    ratings: pl.DataFrame
    signatures: "Signatures | None"
    staged: Path | None
    notes: list[Found] = field(default_factory=list)
    """Findings that cost no row."""
    quarantine: dict[int, Refusal] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)


def process(batch: Batch) -> Processed:
    """Read and check a batch of records; its good rows go to `batch.staged`."""
    collecting = gc.isenabled()
    gc.disable()  # the records make no cycles, and looking for some costs as much as reading them
    try:
        return _process(batch)
    finally:
        if collecting:
            gc.enable()


def _process(batch: Batch) -> Processed:
    plan, rules = batch.plan, batch.checks.rules
    parser = Parser(batch.checks.limits)
    rows = [
        read_row(number, raw, parser, array_is_fatal=batch.starts_file and number == batch.first)
        for number, raw in enumerate(batch.records, batch.first)
    ]
    read = [detection.read(row, plan) if row.value else ([], []) for row in rows]
    texts = [(row, texts) for row, (_, texts) in zip(rows, read, strict=True)]
    apply_text_rules(texts, rules, kind=plan.kind, csv=plan.csv, repair=batch.checks.repair)
    good: list[tuple[Row, list[Canonical]]] = []
    quarantine: dict[int, Refusal] = {}
    notes: list[Found] = []
    dropped: Counter[str] = Counter()
    for row, (canonical, _) in zip(rows, read, strict=True):
        if not canonical and not row.fatal and not row.dropped:
            row.found("missing_field", None, "no row of the wanted kind can be made of this record")
        if row.fatal:
            quarantine[row.row] = _refusal(row)
            continue
        notes += row.findings
        if row.dropped:
            dropped[row.dropped] += 1
            notes.append(
                Found(row.dropped.replace(" ", "_"), _WHY.get(row.dropped, row.dropped), row.row, row.line)
            )
        else:
            good.append((row, canonical))
    table = _repaired(batch, table_of(plan.kind, good), notes)
    table = _within_contract(batch, table, quarantine)
    if batch.staged is not None:
        table.write_ipc(batch.staged, compression="uncompressed")
    return Processed(
        rows=len(rows),
        index=index_of(plan.kind, table),
        sample=_sample(table, batch.first),
        ratings=ratings_of(plan.kind, table),
        signatures=_signatures(plan.kind, table) if batch.checks.near_duplicates else None,
        staged=batch.staged,
        notes=notes,
        quarantine=quarantine,
        dropped=dropped,
    )


def _signatures(kind: Kind, table: pl.DataFrame) -> "Signatures":
    from rlhf.data.near import signatures

    return signatures(whole_texts(kind, table))


_WHY = {
    "tie": "a tie gives no pair; rankings keep ties",
    "nothing ranked": "no message of this tree has two ranked answers",
    "nothing answered": "no message of this tree has an answer",
}


def _refusal(row: Row) -> Refusal:
    text = row.content()[: 4 * SHOWN].decode(errors="backslashreplace")
    return Refusal(row.sha1().hex(), masked(text), row.findings)


def masked(text: str) -> str:
    """Return the beginning of a text, escaped, with personal data and secrets masked."""
    hidden = pl.select(repaired(pl.lit(text), ("secret", "pii"))).item()
    return ascii(hidden[:SHOWN])[1:-1]


def _repaired(batch: Batch, table: pl.DataFrame, notes: list[Found]) -> pl.DataFrame:
    kinds = [kind for kind in REPAIRS if kind in batch.checks.repair]
    if not kinds or not {found.kind for found in notes} & set(kinds):
        return table
    return repaired_table(batch.plan.kind, table, kinds)


def _sample(table: pl.DataFrame, first: int) -> pl.DataFrame:
    """Return rows drawn by the hash of their place, fewer the further down: twice what the final sample can take."""
    drawn = table.with_columns(pl.col("_row").hash(seed=5).alias("_draw"))
    return drawn.filter(pl.col("_draw") < min(2.0 * SAMPLE / (first + 1), 1.0) * 2**64)


def _within_contract(batch: Batch, table: pl.DataFrame, quarantine: dict[int, Refusal]) -> pl.DataFrame:
    """Hold the table against its pandera model; rows that the rules let through wrongly go to quarantine."""
    try:
        TABLES[batch.plan.kind].validate(table.drop(list(PLACE)), lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = list(errors.failure_cases.select("check", "index").iter_rows())
        if any(index is None for _, index in cases):
            raise
        records = list(batch.records)
        for check, index in cases:
            row, line, sha1 = (table[name][index] for name in ("_row", "_line", "_sha1"))
            found = Found("schema_type", f"the row fails the check {check!r} of its table", row, line)
            text = records[row - batch.first].data[: 4 * SHOWN].decode(errors="backslashreplace")
            quarantine.setdefault(row, Refusal(sha1.hex(), masked(text), [])).findings.append(found)
        bad = pl.Series(list(quarantine), dtype=pl.Int64)
        return table.filter(~pl.col("_row").is_in(bad.implode()))
    return table
