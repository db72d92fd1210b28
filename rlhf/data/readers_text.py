"""Plain text, cut into documents between paragraphs."""

import codecs
from collections.abc import Iterator

from rlhf.data.records import Limits, Raw, refuse

_DOCUMENT = 4_000
"""Characters of a document; it goes on to the end of its paragraph."""
_LONGEST = 16_000
"""Characters after which a document ends with a line although the paragraph goes on."""


def text_records(pieces: Iterator[bytes], limits: Limits) -> Iterator[Raw]:
    """Yield documents of plain text: whole paragraphs, joined up to about 4,000 characters."""
    parts: list[str] = []
    size = blank = 0
    start = line = 1
    for text in _lines(pieces, limits):
        if blank and size > _DOCUMENT:
            yield from _document(start, parts)
            parts, size, start = [], 0, line
        parts.append(text)
        size += len(text)
        line += text.count("\n")
        blank = not text.strip()
        if size > _LONGEST:
            yield from _document(start, parts)
            parts, size, start = [], 0, line
    yield from _document(start, parts)


def _lines(pieces: Iterator[bytes], limits: Limits) -> Iterator[str]:
    """Yield lines with their ends; a line beyond the limit comes in parts."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    tail, number = "", 1
    try:
        for piece in pieces:
            *whole, tail = (tail + decoder.decode(piece)).split("\n")
            for line in whole:
                yield line.removesuffix("\r") + "\n"
            number += len(whole)
            if len(tail) > limits.row_bytes // 2:
                yield tail
                tail = ""
        tail += decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        message = f"not UTF-8 on or after line {number}; save the file as UTF-8"
        raise refuse("encoding_error", message, line=number) from error
    if tail:
        yield tail


def _document(line: int, parts: list[str]) -> Iterator[Raw]:
    text = "".join(parts)
    if text.strip():
        first = len(text) - len(text.lstrip())
        yield Raw(line + text.count("\n", 0, first), text.encode(), {"text": text.strip()})
