"""Open a data file of any supported format, defended before any schema: nothing is unpickled, executed or trusted."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from rlhf.data.paths import refuse_archive, unsafe_name
from rlhf.data.readers_json import json_batches
from rlhf.data.readers_lines import Lines, batched, line_batches
from rlhf.data.readers_table import csv_records, parquet_records, saved_records
from rlhf.data.readers_text import text_records
from rlhf.data.records import Found, Limits, Raw, Records, refuse
from rlhf.data.streams import GZIP, ZSTD, Text, open_text

_COMPRESSED = {".gz", ".zst", ".zstd"}


@dataclass(slots=True)
class Source:
    """A file that has been opened: its format in words, its records, and what the reader noticed on the way."""

    format: str
    batches: Iterator[Records | Lines]
    notes: list[Found] = field(default_factory=list)
    """Findings on the whole file; complete once `batches` is exhausted."""

    @property
    def records(self) -> Iterator[Raw]:
        """The records one by one, instead of in batches."""
        return chain.from_iterable(self.batches)


def open_source(path: Path, limits: Limits, size: int = 1_000) -> Source:
    """Detect the format of a file and return its records in batches of `size` (fewer where they are large).

    Raises `Refused` where nothing of the file may be used.
    """
    notes = unsafe_name(path)
    if path.is_dir():
        return Source("saved dataset", batched(saved_records(path, limits), size), notes)
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise refuse("empty_file", f"{path.name!r} has 0 bytes; export it again")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = head.startswith((GZIP, ZSTD))
    if head.startswith(b"PAR1") or (suffixes[-1:] == [".parquet"] and not compressed):
        return Source("Parquet", batched(parquet_records(path, limits), size), notes)
    if head.startswith(b"PK\x03\x04"):
        raise refuse_archive(path)
    text = open_text(path, head, limits, notes)
    suffix = next((s for s in reversed(suffixes) if s not in _COMPRESSED), "")
    name, batches = _text(suffix, text, limits, size)
    return Source(f"{name}, {text.compression}" if text.compression else name, batches, notes)


def _text(suffix: str, text: Text, limits: Limits, size: int) -> tuple[str, Iterator[Records | Lines]]:
    if suffix in {".csv", ".tsv"}:
        separator = "\t" if suffix == ".tsv" else ","
        return "CSV", batched(csv_records(text.pieces, limits, separator), size)
    if suffix in {".txt", ".text", ".md"}:
        return "plain text", batched(text_records(text.pieces, limits), size)
    if suffix == ".json":
        return "JSON", json_batches(text.pieces, limits, size=size, start=text.start)
    return "JSON Lines", line_batches(text.pieces, limits, size=size, start=text.start)
