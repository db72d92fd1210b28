"""JSON Lines, JSON and plain text, with every defect of a row named instead of raised."""

import hashlib
import json
import math
import re
from collections.abc import Iterator

from rlhf.data.records import Json, Limits, Row, refuse, shown, walk

_DOCUMENT_CHARACTERS = 4_000


class _Parser:
    """A JSON parser that remembers duplicate keys and odd numbers of the text it has just read."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.duplicates: list[str] = []
        self.constants = False
        self.huge = False
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_int=self._integer,
            parse_float=self._real,
        )

    def parse(self, text: str) -> Json:
        self.duplicates, self.constants, self.huge = [], False, False
        value: Json = self._decoder.decode(text)
        return value

    def _object(self, pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        value = dict(pairs)
        if len(value) < len(pairs):
            names = [name for name, _ in pairs]
            self.duplicates += [name for name in value if names.count(name) > 1]
        return value

    def _constant(self, name: str) -> float:
        self.constants = True
        return float(name)

    def _integer(self, digits: str) -> int:
        self.huge = self.huge or len(digits) > self.limits.digits
        return 0 if len(digits) > self.limits.digits else int(digits)

    def _real(self, digits: str) -> float:
        number = float(digits)
        self.huge = self.huge or math.isinf(number) or len(digits) > self.limits.digits
        return number


def jsonl_rows(pieces: Iterator[bytes], limits: Limits) -> Iterator[Row]:
    """Yield one row per non-blank line; lines end at newline bytes only, never at U+2028 or NEL."""
    parser = _Parser(limits)
    index = 0
    for number, raw, digest in _lines(pieces, limits.row_bytes):
        if not raw.strip():
            continue
        row = Row(index, number, raw, digest=digest)
        if digest:
            row.found("row_too_large", None, f"the row is larger than {limits.row_bytes:,} bytes")
        else:
            _fill(row, parser, first=index == 0)
        index += 1
        yield row


def _lines(pieces: Iterator[bytes], limit: int) -> Iterator[tuple[int, bytes, str]]:
    """Yield (line number, bytes, sha1 if too large); of a line beyond the limit only the beginning is kept."""
    number, tail = 1, b""
    giant = None
    for piece in pieces:
        first, *others = piece.split(b"\n")
        if giant is not None:
            giant.update(first)
        else:
            tail += first
            if len(tail) > limit:
                giant = hashlib.sha1(tail, usedforsecurity=False)
                tail = tail[:4096]
        for other in others:
            yield number, tail.removesuffix(b"\r"), giant.hexdigest() if giant else ""
            number, tail, giant = number + 1, other, None
    yield number, tail.removesuffix(b"\r"), giant.hexdigest() if giant else ""


def _fill(row: Row, parser: _Parser, *, first: bool) -> None:
    """Parse the raw bytes of a row into its value, or say why that is impossible."""
    try:
        value = parser.parse(row.raw.decode())
    except UnicodeDecodeError as error:
        row.found("encoding_error", None, f"not UTF-8 at byte {error.start}; save the file as UTF-8")
        return
    except json.JSONDecodeError as error:
        if first and row.raw.lstrip().startswith(b"["):
            raise refuse(
                "json_array_in_jsonl",
                "the file is one JSON array over several lines; name it .json",
                line=row.line,
            ) from error
        row.found("invalid_json", None, f"{error.msg} at column {error.colno}")
        return
    except RecursionError:
        row.found("nesting_too_deep", None, f"nested deeper than {parser.limits.nesting} levels")
        return
    if isinstance(value, dict):
        _accept(row, value, parser)
    elif first and isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        raise refuse("json_array_in_jsonl", "the file is one JSON array; name it .json", line=row.line)
    else:
        row.found("not_an_object", None, f"the row is {shown(value)}, not an object with named fields")


def _accept(row: Row, value: dict[str, Json], parser: _Parser) -> None:
    """Keep a parsed object after the checks that no later rule could make."""
    row.value = value
    for name in parser.duplicates:
        row.found("duplicate_key", name, f"the key {shown(name)} occurs twice; which one is meant?")
    if parser.constants:
        for where, node in walk(value):
            if isinstance(node, float) and not math.isfinite(node):
                row.found("not_finite", where, f"{node} is not a number that can be used")
    if parser.huge:
        row.found("number_out_of_range", None, "a number is too long or too large to represent")
    if row.raw.count(b"[") + row.raw.count(b"{") > parser.limits.nesting and _deeper(
        value, parser.limits.nesting
    ):
        row.value = {}
        row.found("nesting_too_deep", None, f"nested deeper than {parser.limits.nesting} levels")
    if b"\\ud" in row.raw or b"\\uD" in row.raw:
        for where, node in walk(value):
            if isinstance(node, str) and re.search("[\ud800-\udfff]", node):
                row.found("lone_surrogate", where, "an unpaired surrogate escape cannot be written as UTF-8")
                row.value = {}


def _deeper(value: Json, limit: int) -> bool:
    level: list[Json] = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def json_rows(content: bytes, limits: Limits) -> Iterator[Row]:
    """Yield the objects of a JSON array; a file of JSON Lines called .json is read as such."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise refuse("encoding_error", f"not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    if not text.strip():
        raise refuse("no_rows", "the file holds only white space")
    parser = _Parser(limits)
    try:
        value = parser.parse(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            yield from jsonl_rows(iter([content]), limits)
            return
        message = f"{error.msg} at line {error.lineno}, column {error.colno}; is the file cut off?"
        raise refuse("invalid_json", message, line=error.lineno) from error
    except RecursionError as error:
        raise refuse("nesting_too_deep", f"nested deeper than {limits.nesting} levels") from error
    if not isinstance(value, list):
        yield from _single(value, text)
        return
    yield from _items(value, text, limits)


def _single(value: Json, text: str) -> Iterator[Row]:
    """Yield the rows of an object that wraps a list, or the object itself."""
    if isinstance(value, dict):
        lists = [
            item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], dict)
        ]
        if len(value) == 1 and lists:
            for index, item in enumerate(lists[0]):
                row = Row(index, None, json.dumps(item, ensure_ascii=False).encode(errors="surrogatepass"))
                if isinstance(item, dict):
                    row.value = item
                else:
                    row.found("not_an_object", None, f"the row is {shown(item)}, not an object")
                yield row
            return
    raise refuse(
        "unexpected_top_level", f"the file holds {shown(value)}; wanted a list of objects, or JSON Lines"
    )


def _items(items: list[Json], text: str, limits: Limits) -> Iterator[Row]:
    """Yield the items of an array again one by one, so that each has its line, its bytes and its own defects."""
    parser = _Parser(limits)
    scan = json.JSONDecoder(parse_int=lambda digits: 0).raw_decode
    position = text.index("[") + 1
    line, counted = 1, 0
    for index in range(len(items)):
        while text[position] in " \t\r\n,":
            position += 1
        line += text.count("\n", counted, position)
        counted = position
        _, end = scan(text, position)
        raw = text[position:end].encode()
        row = Row(index, line, raw)
        if len(raw) > limits.row_bytes:
            row.found("row_too_large", None, f"the row is larger than {limits.row_bytes:,} bytes")
            row.raw, row.digest = raw[:4096], hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        else:
            _fill(row, parser, first=False)
        position = end
        yield row


def text_rows(content: bytes) -> Iterator[Row]:
    """Yield documents of plain text: whole paragraphs, joined up to about 4,000 characters."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise refuse("encoding_error", f"not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    index, start, line = 0, 1, 1
    parts: list[str] = []
    for paragraph in re.split(r"(\n[ \t\r]*\n\s*)", text):
        if parts and sum(map(len, parts)) + len(paragraph) > _DOCUMENT_CHARACTERS and "".join(parts).strip():
            yield _document(index, start, "".join(parts))
            index, start, parts = index + 1, line, []
        parts.append(paragraph)
        line += paragraph.count("\n")
    if "".join(parts).strip():
        yield _document(index, start, "".join(parts))


def _document(index: int, line: int, text: str) -> Row:
    return Row(index, line, text.encode(), {"text": text.strip()})
