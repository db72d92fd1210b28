"""What a validation leaves: the table, the quarantine, the manifest, the report. Equal input gives equal bytes."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from rlhf.data.batches import masked
from rlhf.data.canonical import PLACE
from rlhf.data.ledger import Ledger
from rlhf.data.records import Found
from schemas.tables import SCHEMA_VERSION, polars_schema
from schemas.validation import Finding, ValidationReport

_ROW_GROUP = 8_192
SHOWN_PER_KIND = 1_000
"""Findings of one kind in a report; the quarantine file has all."""


def write_table(path: Path, ledger: Ledger) -> int:
    """Write the rows that are kept as a stream, and return their number."""
    weight = ["weight"] if "weight" in ledger.index.columns else []
    keep = ledger.index.lazy().select("_at", *weight)
    staged = pl.scan_ipc([part for part, _ in ledger.staged], row_index_name="_at").drop(weight)
    kept = staged.join(keep, on="_at", how="inner", maintain_order="left").select(
        list(polars_schema(ledger.kind))
    )
    # Row groups of one size: the bytes depend on neither batches nor threads.
    kept.sink_parquet(
        path, compression="zstd", compression_level=1, statistics=False, row_group_size=_ROW_GROUP
    )
    return ledger.index.height


def write_quarantine(path: Path, ledger: Ledger) -> None:
    """Write one JSON line per row in quarantine: where it stood, why, its digest, its beginning (escaped, capped)."""
    texts = _texts(ledger)
    with path.open("w", encoding="ascii", newline="\n") as file:
        for row in sorted(ledger.quarantine):
            refusal = ledger.quarantine[row]
            first = refusal.findings[0]
            name, number = ledger.place(row)
            line = {
                "file": name or ledger.sources[0][1], "row": number, "line": first.line, "field": first.field,
                "kind": first.kind, "message": first.message,
                "all": [f"{found.kind} in {found.field}" for found in refusal.findings],
                "sha1": refusal.sha1, "text": refusal.text or texts.get(row, ""),
            }  # fmt: skip
            file.write(json.dumps(line) + "\n")


def _texts(ledger: Ledger) -> dict[int, str]:
    """Return the beginnings of rows that went to quarantine after their batch had been read."""
    late = {row for row, refusal in ledger.quarantine.items() if not refusal.text}
    texts: dict[int, str] = {}
    for staged, _ in ledger.staged if late else ():
        table = pl.read_ipc(staged)
        for values in table.filter(pl.col("_row").is_in(list(late))).iter_rows(named=True):
            shown = {name: value for name, value in values.items() if name not in PLACE}
            texts.setdefault(values["_row"], masked(json.dumps(shown, ensure_ascii=False)))
    return texts


def write_manifest(
    folder: Path, ledger: Ledger, paths: Sequence[Path], rows: int, digests: Sequence[str]
) -> None:
    """Say what the table is, and what it was made of: files with these digests."""
    table = folder / f"{ledger.kind}.parquet"
    manifest = {
        "table": table.name,
        "kind": ledger.kind,
        "schema_version": SCHEMA_VERSION,
        "digest": f"sha256:{digest(table)}",
        "rows": rows,
        "records": {
            "read": ledger.rows, "kept": ledger.kept, "quarantined": len(ledger.quarantine),
            "dropped": {reason: count for reason, count in sorted(ledger.dropped.items()) if count},
        },
        "parents": [
            {"file": path.name, "bytes": _size(path), "digest": f"sha256:{found}"}
            for path, found in zip(paths, digests, strict=True)
        ],
    }  # fmt: skip
    text = json.dumps(manifest, indent=1)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def digest(path: Path) -> str:
    """Return the sha256 of a file, or of all files in a folder with their names."""
    whole = hashlib.sha256()
    for part in _files(path):
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256")
        if part == path:
            return found.hexdigest()
        whole.update(f"{part.relative_to(path)} {found.hexdigest()}\n".encode())
    return whole.hexdigest()


def report_of(ledger: Ledger, source: str) -> ValidationReport:
    """Return the report: verdict, books, and the findings in the order of the rows."""
    lost = [found for row in sorted(ledger.quarantine) for found in ledger.quarantine[row].findings]
    notes = sorted(ledger.notes, key=lambda found: -1 if found.row is None else found.row)
    verdict: Literal["accept", "warn", "quarantine_rows", "reject_file"] = "accept"
    if ledger.rejected:
        verdict = "reject_file"
    elif ledger.quarantine:
        verdict = "quarantine_rows"
    elif ledger.warned:
        verdict = "warn"
    dropped = {reason: count for reason, count in sorted(ledger.dropped.items()) if count}
    if ledger.rejected:
        dropped = {}
    return ValidationReport(
        kind=ledger.kind,
        source=source,
        format="; ".join(dict.fromkeys(ledger.formats)) or "unknown",
        verdict=verdict,
        rows=ledger.rows,
        kept=0 if ledger.rejected else ledger.kept,
        quarantined=ledger.rows if ledger.rejected else len(ledger.quarantine),
        dropped=sum(dropped.values()),
        reasons=dropped,
        counts={kind: len(rows) for kind, rows in sorted(ledger.rows_by_kind().items())},
        findings=tuple(_finding(ledger, found) for found in _capped([*notes, *lost])),
        statistics=ledger.statistics,
        figures=ledger.figures,
    )


def _capped(findings: Sequence[Found]) -> list[Found]:
    seen: Counter[str] = Counter()
    shown = []
    for found in findings:
        seen[found.kind] += 1
        if seen[found.kind] <= SHOWN_PER_KIND:
            shown.append(found)
    return shown


def _finding(ledger: Ledger, found: Found) -> Finding:
    name, row = ledger.place(found.row)
    return Finding(
        kind=found.kind, file=name, row=row, line=found.line, field=found.field, message=found.message
    )
