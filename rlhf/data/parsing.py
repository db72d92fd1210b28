"""From the bytes of one JSON record to its values, with every defect named instead of raised."""

import json
import math
import re
from collections.abc import Callable, Iterable

import orjson

from rlhf.data.records import Json, Limits, Raw, Row, refuse, shown, walk

_SURROGATE = re.compile("[\ud800-\udfff]")


class Parser:
    """A JSON parser that remembers duplicate keys and odd numbers of the text it has just read."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.duplicates: list[str] = []
        self.constants = False
        self.huge = False
        # The scanner itself: `decode` looks for white space with regular expressions, row by row.
        decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_constant=self._constant,
            parse_int=self._integer,
            parse_float=self._real,
        )
        self._scan: Callable[[str, int], tuple[Json, int]] = decoder.scan_once  # type: ignore[attr-defined]  # not in the stubs

    def parse(self, text: str) -> Json:
        """Return the value of a JSON text."""
        self.duplicates, self.constants, self.huge = [], False, False
        text = text.strip(" \t\r\n")
        try:
            value, end = self._scan(text, 0)
        except StopIteration as stop:
            raise json.JSONDecodeError("Expecting value", text, stop.value) from None
        if end != len(text):
            raise json.JSONDecodeError("Extra data", text, end)
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


def read_row(number: int, raw: Raw, parser: Parser, *, array_is_fatal: bool = False) -> Row:
    """Return a record's row: its values, or the finding that says why there are none."""
    row = Row(number, raw.line, raw.data, digest=raw.digest)
    if raw.defect is not None:
        row.findings.append(raw.defect._replace(row=number))
        row.fatal = True
    elif raw.value is not None:
        row.value = raw.value
    else:
        _fill(row, parser, array_is_fatal=array_is_fatal)
    return row


_CONTAINERS = (dict, list)
_DEPTH = 100
"""Levels that both parsers go down to."""
_INTEGER = 20
"""Digits of the longest number that the fast parser takes for an integer."""
_COLON = re.compile(rb'"[ \t\r\n]*:')


def plain(data: bytes, limits: Limits) -> dict[str, Json] | None:
    """Return the object in a record of which `Parser` would say the same and nothing more; None: ask it.

    The fast parser takes valid JSON only (UTF-8 without lone surrogates, NaN or Infinity), but is silent about
    keys that occur twice and rounds large numbers: those are looked for here.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if type(value) is not dict:
        return None
    keys = 0
    nodes: list[dict[str, Json] | list[Json]] = [value]
    for node in nodes:
        inside: Iterable[Json] = node
        if isinstance(node, dict):
            keys += len(node)
            inside = node.values()
        for item in inside:
            if isinstance(item, str):
                continue
            if isinstance(item, _CONTAINERS):
                nodes.append(item)
            elif isinstance(item, float) or (isinstance(item, int) and limits.digits < _INTEGER):
                return None
    if len(nodes) > min(limits.nesting, _DEPTH):
        return None
    # A colon follows every key of the text: with no more of them than keys in the value, no key occurs twice.
    once = data.count(b":") == keys or len(_COLON.findall(data)) == keys
    return value if once else None


def _fill(row: Row, parser: Parser, *, array_is_fatal: bool) -> None:
    """Parse the raw bytes of a row into its value, or say why that is impossible."""
    if (sound := plain(row.raw, parser.limits)) is not None:
        row.value = sound
        return None
    if (where := _too_deep(row.raw, parser.limits.nesting)) is not None:
        return row.found("nesting_too_deep", where, f"nested deeper than {parser.limits.nesting} levels")
    try:
        value = parser.parse(row.raw.decode())
    except UnicodeDecodeError as error:
        return row.found(
            "encoding_error", None, f"not UTF-8 at byte {error.start} of the row; save the file as UTF-8"
        )
    except json.JSONDecodeError as error:
        if array_is_fatal and row.raw.lstrip().startswith(b"["):
            message = "the file is one JSON array over several lines; name it .json"
            raise refuse("json_array_in_jsonl", message, line=row.line) from error
        return row.found("invalid_json", None, f"{error.msg} at column {error.colno}")
    except RecursionError:
        return row.found("nesting_too_deep", None, f"nested deeper than {parser.limits.nesting} levels")
    if isinstance(value, dict):
        _accept(row, value, parser)
    elif array_is_fatal and isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        raise refuse("json_array_in_jsonl", "the file is one JSON array; name it .json", line=row.line)
    else:
        row.found("not_an_object", None, f"the row is {shown(value)}, not an object with named fields")
    return None


def _accept(row: Row, value: dict[str, Json], parser: Parser) -> None:
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
    if b"\\ud" in row.raw or b"\\uD" in row.raw:
        for where, node in walk(value):
            if isinstance(node, str) and _SURROGATE.search(node):
                row.found("lone_surrogate", where, "an unpaired surrogate escape cannot be written as UTF-8")
                row.value = {}


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_KEY = re.compile(rb'"([\w .-]{1,60})"\s*:\s*[\[{]')


def _too_deep(data: bytes, limit: int) -> str | None:
    """Return the name before the brackets that are nested deeper than the limit; None: nothing is."""
    if data.count(b"[") + data.count(b"{") <= limit:
        return None
    depth = 0
    for found in re.finditer(rb"[\[\]{}]", _STRING.sub(_blank, data)):
        depth += 1 if found[0] in b"[{" else -1
        if depth > limit:
            names = _KEY.findall(data, 0, found.start())
            return names[-1].decode() if names else ""
    return None


def _blank(found: re.Match[bytes]) -> bytes:
    return b'"' * len(found[0])
