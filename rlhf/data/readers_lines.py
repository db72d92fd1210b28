"""JSON Lines, cut into blocks of whole lines without parsing them; whoever works on a block takes it apart."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from rlhf.data.records import Found, Limits, Raw, Records
from rlhf.data.streams import Span
from schemas.errors import DataRejected

HEAD = 4096
"""Bytes that are kept of a record beyond the limit."""
_BATCH_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines of a file as a sequence of records: one per line that is not blank."""

    first: int
    """Number of the first line."""
    records: int
    limits: Limits
    text: bytes | Span

    def __len__(self) -> int:
        return self.records

    def __iter__(self) -> Iterator[Raw]:
        text = self.text.read() if isinstance(self.text, Span) else self.text
        records = [
            _line(number, data, self.limits)
            for number, data in enumerate(text.split(b"\n"), self.first)
            if data and not data.isspace()
        ]
        if len(records) != self.records:
            raise DataRejected(
                f"lines {self.first} and further held {self.records} records and now hold {len(records)}: the file was changed while it was read. Leave it alone, and validate it again."
            )
        return iter(records)


def batched(records: Iterator[Raw], size: int) -> Iterator[Records]:
    """Yield records a few megabytes at a time."""
    batch, taken = Records(), 0
    for record in records:
        batch.append(record)
        taken += len(record.data)
        if len(batch) == size or taken > _BATCH_BYTES:
            yield batch
            batch, taken = Records(), 0
    if batch:
        yield batch


class _Block:
    """The lines that have been read and not yet handed on."""

    def __init__(self, limits: Limits, start: Span | None) -> None:
        self.limits, self.span = limits, start
        self.line = 1
        self._clear()

    def _clear(self) -> None:
        self.lines: list[bytes] = []
        self.count = self.size = self.records = 0

    def add(self, data: bytes) -> None:
        """Take one line without its end."""
        self.count += 1
        self.size += len(data) + 1
        if self.span is None:
            self.lines.append(data)
        if data and not data.isspace():
            self.records += 1

    def close(self) -> Iterator[Lines]:
        """Yield the block, if there is a record in it, and begin the next one."""
        text = b"\n".join(self.lines) if self.span is None else self.span._replace(size=self.size)
        if self.records:
            yield Lines(self.line, self.records, self.limits, text)
        self._begin(self.count, self.size)

    def skip(self, head: bytes, digest: str, size: int) -> Records:
        """Return the record of a line that is too large to be kept, which must come right after `close`."""
        record = giant(self.line, head, digest, self.limits)
        self._begin(1, size + 1)
        return Records([record])

    def _begin(self, lines: int, size: int) -> None:
        self.line += lines
        if self.span is not None:
            self.span = self.span._replace(start=self.span.start + size)
        self._clear()


def line_batches(
    pieces: Iterator[bytes], limits: Limits, *, size: int, start: Span | None = None
) -> Iterator[Records | Lines]:
    """Yield the lines in batches; lines end at newline bytes only, never at U+2028 or NEL.

    `start` is where the pieces begin in a file which can be read again; of a line beyond the limit only the beginning
    is kept.
    """
    block = _Block(limits, start)
    tail, taken = b"", 0
    digest = None
    for piece in pieces:
        if digest is not None:
            first, newline, piece = piece.partition(b"\n")
            digest.update(first)
            taken += len(first)
            if not newline:
                continue
            yield block.skip(tail, digest.hexdigest(), taken)
            tail, digest = b"", None
        *whole, tail = (tail + piece).split(b"\n")
        for data in whole:
            block.add(data)
            if block.records == size or block.size > _BATCH_BYTES:
                yield from block.close()
        if len(tail) > limits.row_bytes:
            yield from block.close()
            digest, taken = hashlib.sha1(tail, usedforsecurity=False), len(tail)
            tail = tail[:HEAD]
    if digest is not None:
        yield block.skip(tail, digest.hexdigest(), taken)
    else:
        block.add(tail)
        yield from block.close()


def _line(line: int, data: bytes, limits: Limits) -> Raw:
    if len(data) > limits.row_bytes:
        return giant(line, data[:HEAD], hashlib.sha1(data, usedforsecurity=False).hexdigest(), limits)
    return Raw(line, data[:-1] if data.endswith(b"\r") else data)


def giant(line: int | None, head: bytes, digest: str, limits: Limits) -> Raw:
    """Return the record of a row beyond the limit: its beginning and the digest of the whole."""
    defect = Found("row_too_large", f"the row is larger than {limits.row_bytes:,} bytes", None, line)
    return Raw(line, head, None, defect, digest)
