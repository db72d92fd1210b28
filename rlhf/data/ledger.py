"""The books of a validation: every record that was read is kept, in quarantine, or left out for a named reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from rlhf.data.batches import SAMPLE, Processed, Refusal
from rlhf.data.canonical import PLACE, index_of
from rlhf.data.records import Found
from rlhf.data.rules import level_of
from schemas.config.rules import Rule
from schemas.tables import Kind, polars_schema

if TYPE_CHECKING:
    from rlhf.data.near import Signatures

SHARES_COUNT_FROM = 100
"""Rows from which on a share of the rows says something about the file."""

_NORMAL = {
    ("constant_response", "demonstrations"), ("constant_response", "feedback"), ("exact_duplicate", "prompts"),
}  # fmt: skip


@dataclass(slots=True)
class Ledger:
    """Files on their way through the rules: rows == kept + quarantined + dropped at every step."""

    kind: Kind
    rules: Mapping[str, Rule]
    rows: int = 0
    sources: list[tuple[int, str]] = field(default_factory=list)
    """(number of the first record, name) of each file."""
    formats: list[str] = field(default_factory=list)
    staged: list[tuple[Path, int]] = field(default_factory=list)
    """Tables of the good rows, batch by batch, with their heights."""
    index: pl.DataFrame = field(default_factory=pl.DataFrame)
    """Numbers about the rows that are still good, in order; `_at` is their place in the staged tables."""
    sample: pl.DataFrame = field(default_factory=pl.DataFrame)
    ratings: pl.DataFrame = field(default_factory=pl.DataFrame)
    rejected: bool = False
    warned: set[str] = field(default_factory=set)
    """Kinds whose share or measure makes the verdict a warning."""
    notes: list[Found] = field(default_factory=list)
    """Findings on the files, and those that cost no row."""
    quarantine: dict[int, Refusal] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    statistics: dict[str, float] = field(default_factory=dict)
    figures: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Numbers to draw: histograms and curves by name."""
    signatures: "Signatures | None" = None
    """MinHash of each row that was staged, by `_at`."""
    _parts: list[pl.DataFrame] = field(default_factory=list)
    _ratings: list[pl.DataFrame] = field(default_factory=list)
    _samples: list[pl.DataFrame] = field(default_factory=list)
    _signatures: "list[Signatures]" = field(default_factory=list)

    def take(self, batch: Processed) -> None:
        """Add what came of a batch."""
        self.rows += batch.rows
        self._parts.append(batch.index)
        self._ratings.append(batch.ratings)
        self._samples.append(batch.sample)
        if sum(part.height for part in self._samples) > 3 * SAMPLE:
            self._samples = [pl.concat(self._samples).bottom_k(SAMPLE, by="_draw")]
        if batch.signatures is not None:
            self._signatures.append(batch.signatures)
        if batch.staged is not None:
            self.staged.append((batch.staged, batch.index.height))
        self.notes += batch.notes
        self.quarantine |= batch.quarantine
        self.dropped += batch.dropped

    def close_reading(self) -> None:
        """Put the parts together once all files are read."""
        empty = pl.DataFrame(schema={**polars_schema(self.kind), **PLACE})
        parts = self._parts or [index_of(self.kind, empty)]
        self.index = pl.concat(parts).with_row_index("_at")
        self.ratings = pl.concat(self._ratings) if self._ratings else pl.DataFrame()
        samples = self._samples or [empty.with_columns(pl.lit(0, pl.UInt64).alias("_draw"))]
        self.sample = pl.concat(samples).bottom_k(SAMPLE, by="_draw").sort("_row").drop("_draw")
        if self._signatures:
            self.signatures = np.concatenate(self._signatures)
        self._parts, self._ratings, self._samples, self._signatures = [], [], [], []

    @property
    def kept(self) -> int:
        """Records of which at least one canonical row is kept."""
        return self.index["_row"].n_unique()

    def drop(self, mask: pl.Series, reason: str, message: str) -> None:
        """Leave rows out; a record counts as dropped when none of its rows is left."""
        gone = self.index.filter(mask).unique("_row", maintain_order=True)
        self.index = self.index.filter(~mask)
        left = self.index["_row"].unique().implode()
        lost = gone.filter(~pl.col("_row").is_in(left))
        self.dropped[reason] += lost.height
        self.note(gone, reason, "", message)

    def set_aside(self, mask: pl.Series, kind: str, where: str | None, message: str) -> None:
        """Move the records of rows to quarantine, unless the rule's level spares them."""
        gone = self.index.filter(mask).unique("_row", maintain_order=True)
        if level_of(kind, self.rules) not in {"quarantine", "reject"}:
            self.note(gone, kind, where, message)
            return
        self.index = self.index.filter(~mask)
        left = set(self.index["_row"].unique()) if gone.height else set()
        for row, line, sha1 in gone.select("_row", "_line", "_sha1").iter_rows():
            if row not in left:  # another row of the record may still be good
                found = Found(kind, message, row, line, where)
                self.quarantine.setdefault(row, Refusal(sha1.hex(), "", [])).findings.append(found)

    def note(self, rows: pl.DataFrame, kind: str, where: str | None, message: str) -> None:
        """Name rows without taking them away."""
        if level_of(kind, self.rules) != "off":
            self.notes += [
                Found(kind, message, row, line, where)
                for row, line in rows.select("_row", "_line").unique("_row", maintain_order=True).iter_rows()
            ]

    def measure(self, kind: str, value: float, message: str, where: str | None = None) -> None:
        """Compare a measure of the whole file with its rule."""
        rule = self.rules[kind]
        if rule.level == "off" or value <= rule.warn_above:
            return
        self.notes.append(Found(kind, message, field=where))
        if rule.level != "info":
            self.warned.add(kind)
        above = rule.reject_above is not None and value > rule.reject_above and self._may_refuse(kind)
        self.rejected |= rule.level == "reject" or (above and self.rows >= SHARES_COUNT_FROM)

    def _may_refuse(self, kind: str) -> bool:
        # Short answers repeat by their nature, and so do prompts of which several comparisons were made.
        return (kind, self.kind) not in _NORMAL

    def weigh_shares(self) -> None:
        """Compare the share of the rows that each kind was found in with its rule."""
        for kind, rows in self.rows_by_kind().items():
            rule, share = self.rules.get(kind), len(rows) / max(self.rows, 1)
            if rule is None or rule.level == "off":
                continue
            if share > rule.warn_above and (rule.level != "info" or rule.warn_above > 0):
                self.warned.add(kind)
            limit = rule.reject_above if self._may_refuse(kind) else None
            many = limit is not None and share > limit and self.rows >= SHARES_COUNT_FROM
            if limit is not None and (
                many or (rule.reject_rows is not None and len(rows) > rule.reject_rows)
            ):
                message = (
                    f"{kind} in {len(rows)} of {self.rows} rows: more than {limit:.1%} makes the file suspect"
                )
                self.notes.append(Found(kind, message))
                self.rejected = True

    def rows_by_kind(self) -> dict[str, set[int]]:
        """Return the records in which each kind was found."""
        found: dict[str, set[int]] = {}
        lost = (f for refusal in self.quarantine.values() for f in refusal.findings)
        for finding in (*self.notes, *lost):
            if finding.row is not None:
                found.setdefault(finding.kind, set()).add(finding.row)
        return found

    def place(self, row: int | None) -> tuple[str | None, int | None]:
        """Return the file of a record, where there are several, and its number in it."""
        if row is None or len(self.sources) < 2:
            return None, row
        start, name = max(((s, n) for s, n in self.sources if s <= row), key=lambda source: source[0])
        return name, row - start
