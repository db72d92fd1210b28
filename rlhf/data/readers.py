"""Open a data file of any supported format, defended before any schema: nothing is unpickled, executed or trusted."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rlhf.data.paths import refuse_archive, unsafe_name
from rlhf.data.readers_json import json_records, jsonl_records
from rlhf.data.readers_table import csv_records, parquet_records, saved_records
from rlhf.data.readers_text import text_records
from rlhf.data.records import Found, Limits, Raw, refuse
from rlhf.data.streams import GZIP, ZSTD, text_pieces

_COMPRESSED = {".gz", ".zst", ".zstd"}


@dataclass(slots=True)
class Source:
    """A file that has been opened: its format in words, its records, and what the reader noticed on the way."""

    format: str
    records: Iterator[Raw]
    notes: list[Found] = field(default_factory=list)
    """Findings on the whole file; complete once `records` is exhausted."""


def open_source(path: Path, limits: Limits) -> Source:
    """Detect the format of a file and return its records; raise `Refused` where nothing of it may be used."""
    notes = unsafe_name(path)
    if path.is_dir():
        return Source("saved dataset", saved_records(path, limits), notes)
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise refuse("empty_file", f"{path.name!r} has 0 bytes; export it again")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = head.startswith((GZIP, ZSTD))
    if head.startswith(b"PAR1") or (suffixes[-1:] == [".parquet"] and not compressed):
        return Source("Parquet", parquet_records(path, limits), notes)
    if head.startswith(b"PK\x03\x04"):
        raise refuse_archive(path)
    compression, pieces = text_pieces(path, head, limits, notes)
    suffix = next((s for s in reversed(suffixes) if s not in _COMPRESSED), "")
    source = _text(suffix, pieces, limits, notes)
    source.format += f", {compression}" if compression else ""
    return source


def _text(suffix: str, pieces: Iterator[bytes], limits: Limits, notes: list[Found]) -> Source:
    if suffix in {".csv", ".tsv"}:
        separator = "\t" if suffix == ".tsv" else ","
        return Source("CSV", csv_records(pieces, limits, separator), notes)
    if suffix in {".txt", ".text", ".md"}:
        return Source("plain text", text_records(pieces, limits), notes)
    if suffix == ".json":
        return Source("JSON", json_records(pieces, limits), notes)
    return Source("JSON Lines", jsonl_records(pieces, limits), notes)
