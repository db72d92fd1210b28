"""JSON arrays, split into records without parsing them, so that one bad record costs only itself."""

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import chain

import orjson

from rlhf.data.parsing import Parser, read_row
from rlhf.data.readers_lines import HEAD, Lines, batched, giant, line_batches
from rlhf.data.records import Limits, Raw, Records, refuse, shown
from rlhf.data.streams import Span

_BLANK = b" \t\r\n"
_OUTSIDE = re.compile(rb'["\[\]{},]')
_INSIDE = re.compile(rb'["\\]')
_WHOLE = 50_000_000


def json_batches(
    pieces: Iterator[bytes], limits: Limits, *, size: int, start: Span | None = None
) -> Iterator[Records | Lines]:
    """Yield the items of a JSON array, or of the only list in a JSON object; JSON Lines called .json are read too."""
    head = b""
    for piece in pieces:
        head += piece
        if head.strip(_BLANK) and len(head) >= HEAD:
            break
    text = head.lstrip(_BLANK)
    if not text:
        raise refuse("no_rows", "the file holds only white space")
    if text.startswith(b"["):
        yield from batched(_items(head, head.index(text) + 1, pieces, limits), size)
    elif text.startswith(b"{") and _is_lines(text):
        yield from line_batches(chain([head], pieces), limits, size=size, start=start)
    elif text.startswith(b"{"):
        yield from batched(_wrapped(chain([head], pieces), limits), size)
    else:
        what = shown(text[:20].decode(errors="replace"))
        raise refuse(
            "unexpected_top_level", f"the file starts with {what}; wanted a list of objects, or JSON Lines"
        )


def _is_lines(start: bytes) -> bool:
    """Tell whether a file that starts with an object goes on with others, one per line."""
    first, newline, rest = start.partition(b"\n")
    return not newline or first.rstrip().endswith(b"}") or rest.lstrip(_BLANK).startswith(b"{")


def _wrapped(pieces: Iterator[bytes], limits: Limits) -> Iterator[Raw]:
    """Yield the records of one object over several lines: itself, or the items of the only list of objects in it."""
    content = b""
    for piece in pieces:
        content += piece
        if len(content) > _WHOLE:
            raise refuse("unexpected_top_level", "the file is one large object; write a list, or JSON Lines")
    row = read_row(0, Raw(1, content), Parser(limits))
    if row.fatal:
        found = row.findings[0]
        where = json_error(content)
        raise refuse(found.kind, f"{found.message}{where and f' on line {where}'}", line=where)
    lists = [
        (name, items)
        for name, items in row.value.items()
        if isinstance(items, list) and items and all(isinstance(item, dict) for item in items)
    ]
    turns = {"role", "from"}
    if len(lists) == 1 and not any(isinstance(item, dict) and turns & set(item) for item in lists[0][1]):
        for item in lists[0][1]:
            yield Raw(None, orjson.dumps(item))
    elif any(isinstance(items, list) for items in row.value.values()) and not lists:
        raise refuse("unexpected_top_level", "the file is an object of columns; write a list of rows")
    else:
        yield Raw(1, content)


def json_error(content: bytes) -> int | None:
    """Return the line on which a JSON text goes wrong, if it does."""
    try:
        json.loads(content)
    except json.JSONDecodeError as error:
        return error.lineno
    except (UnicodeDecodeError, RecursionError, ValueError):
        return None
    return None


class _Items:
    """Where the scanner of an array stands: in which item, how deep, inside a string or not."""

    def __init__(self, buffer: bytes, position: int) -> None:
        self.buffer, self.position = buffer, position
        self.start: int | None = None
        self.depth = 0
        self.quoted = False
        self.closed = False
        self.line = 1 + buffer.count(b"\n", 0, position)
        self.digest = hashlib.sha1(usedforsecurity=False)
        self.cut = False
        self.commas = 0
        self.items = 0


def _items(head: bytes, position: int, pieces: Iterator[bytes], limits: Limits) -> Iterator[Raw]:
    """Yield the items one by one; only the item that is being read is kept, and of a giant one its beginning."""
    scan = _Items(head, position)
    while True:
        yield from _scan(scan, limits)
        if scan.closed:
            break
        _forget(scan, limits)
        piece = next(pieces, b"")
        if not piece:
            message = f"the array is not closed at the end (line {_here(scan)}); is the file cut off?"
            raise refuse("invalid_json", message, line=_here(scan))
        scan.buffer += piece
    line = scan.line
    for rest in chain([scan.buffer[scan.position :]], pieces):
        if text := rest.lstrip(_BLANK):
            line += rest.count(b"\n", 0, len(rest) - len(text))
            raise refuse("invalid_json", f"text after the end of the array (line {line})", line=line)
        line += rest.count(b"\n")


def _here(scan: _Items) -> int:
    return (
        scan.line if scan.start is None else scan.line + scan.buffer.count(b"\n", scan.start, scan.position)
    )


def _scan(scan: _Items, limits: Limits) -> Iterator[Raw]:
    """Go through the buffer, and yield every item that ends in it."""
    buffer = scan.buffer
    while True:
        if scan.quoted:
            found = _INSIDE.search(buffer, scan.position)
            if found is None:
                scan.position = len(buffer)
                return
            if found[0] == b"\\":
                if found.end() == len(buffer):
                    scan.position = found.start()
                    return
                scan.position = found.end() + 1
                continue
            scan.position, scan.quoted = found.end(), False
            continue
        if scan.start is None and not _enter(scan):
            return
        found = _OUTSIDE.search(buffer, scan.position)
        if found is None:
            scan.position = len(buffer)
            return
        sign = found[0]
        if sign == b'"':
            scan.quoted, scan.position = True, found.end()
        elif sign in (b"{", b"["):
            scan.depth, scan.position = scan.depth + 1, found.end()
        elif scan.depth and sign in (b"}", b"]"):
            scan.depth, scan.position = scan.depth - 1, found.end()
        elif scan.depth:
            scan.position = found.end()
        elif sign in (b",", b"]"):
            yield _item(scan, found.start(), limits)
            scan.position, scan.closed = found.end(), sign == b"]"
            if scan.closed:
                return
        else:
            raise refuse(
                "invalid_json", f"an unexpected {sign.decode()!r} on line {_here(scan)}", line=_here(scan)
            )


def _enter(scan: _Items) -> bool:
    """Move to the first byte of the next item; False: the buffer ends before it, or the array is empty."""
    while scan.position < len(scan.buffer) and scan.buffer[scan.position] in _BLANK:
        scan.line += scan.buffer[scan.position] == 10
        scan.position += 1
    if scan.position == len(scan.buffer):
        return False
    if scan.buffer[scan.position] == 93 and not scan.items:
        scan.position, scan.closed = scan.position + 1, True
        return False
    scan.start = scan.position
    return True


def _item(scan: _Items, end: int, limits: Limits) -> Raw:
    assert scan.start is not None, "an item has begun"
    data = scan.buffer[scan.start : end].rstrip(_BLANK)
    line = scan.line
    if not data and not scan.cut:
        raise refuse(
            "invalid_json", f"an item is missing before a comma or bracket on line {line}", line=line
        )
    scan.line += scan.buffer.count(b"\n", scan.start, end)
    scan.start, scan.items = None, scan.items + 1
    if scan.cut:
        scan.digest.update(data)
        raw = giant(line, data[:HEAD], scan.digest.hexdigest(), limits)
        scan.cut, scan.digest = False, hashlib.sha1(usedforsecurity=False)
        return raw
    if len(data) > limits.row_bytes:
        return giant(line, data[:HEAD], hashlib.sha1(data, usedforsecurity=False).hexdigest(), limits)
    return Raw(line, data)


def _forget(scan: _Items, limits: Limits) -> None:
    """Drop what has been read from the buffer; of an item beyond the limit also what has been seen of it."""
    keep = scan.position if scan.start is None else scan.start
    if scan.start is not None and scan.position - scan.start > limits.row_bytes:
        scan.digest.update(scan.buffer[scan.start : scan.position])
        scan.line += scan.buffer.count(b"\n", scan.start, scan.position)
        scan.cut, keep = True, scan.position
    scan.buffer = scan.buffer[keep:]
    scan.position -= keep
    scan.start = None if scan.start is None else 0
