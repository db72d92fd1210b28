"""What readers hand to the layouts: one record per row, with everything that is wrong with it so far."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import orjson

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

SHOWN = 300
"""Characters of a record that the quarantine file shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a reader takes in before it refuses."""

    row_bytes: int = 1_000_000
    nesting: int = 100
    digits: int = 400
    decompressed_bytes: int = 2_000_000_000
    compression_ratio: int = 200
    unusable_rows: int = 100_000
    """A file with more rows in quarantine is given up: it is something else than it says."""


class Found(NamedTuple):
    """One thing that a rule found: its kind, where it is, and what to do about it."""

    kind: str
    message: str
    row: int | None = None
    line: int | None = None
    field: str | None = None


class Refused(ValueError):
    """A file of which nothing may enter the pipeline, with the findings that say why."""

    def __init__(self, *findings: Found) -> None:
        super().__init__(*findings)
        self.findings = findings


def refuse(kind: str, message: str, *, line: int | None = None, field: str | None = None) -> Refused:
    """Return the exception that rejects a whole file."""
    return Refused(Found(kind, message, None, line, field))


class Raw(NamedTuple):
    """One record as a reader found it: its line and bytes, or its values where the format has types."""

    line: int | None
    data: bytes
    value: dict[str, Json] | None = None
    defect: Found | None = None
    """What the reader could not get over."""
    digest: str = ""
    """sha1 of the whole record, where `data` is only its beginning."""


class Records(list[Raw]):
    """Records on their way to another process: plain ones travel as one block, in a third of the time."""

    def __reduce__(self) -> "tuple[Callable[..., Records], tuple[object, ...]]":
        """Return how to make the list again."""
        if any(raw.value is not None or raw.defect or raw.digest for raw in self):
            return Records, (list(self),)
        sizes = [len(raw.data) for raw in self]
        return _unpacked, ([raw.line for raw in self], sizes, b"".join(raw.data for raw in self))


def _unpacked(lines: list[int | None], sizes: list[int], block: bytes) -> Records:
    ends = list(accumulate(sizes))
    return Records(
        Raw(line, block[end - size : end]) for line, size, end in zip(lines, sizes, ends, strict=True)
    )


@dataclass(slots=True)
class Row:
    """One data record: where it stands in the file, its bytes, its value, and what is wrong with it."""

    row: int
    line: int | None
    raw: bytes
    """The record as it stands in the file; empty where the format has no text, its beginning where it is too large."""
    value: dict[str, Json] = field(default_factory=dict)
    findings: list[Found] = field(default_factory=list)
    digest: str = ""
    fatal: bool = False
    """True: the row goes to quarantine."""
    dropped: str = ""
    """Why the row is left out although nothing is wrong with it (a tie gives no pair)."""

    def found(self, kind: str, where: str | None, message: str, *, fatal: bool = True) -> None:
        """Add a finding; a fatal one sends the row to quarantine."""
        self.findings.append(Found(kind, message, self.row, self.line, where))
        self.fatal = self.fatal or fatal

    def content(self) -> bytes:
        """Return the record as bytes: those of the file, or its values as JSON."""
        return self.raw or orjson.dumps(self.value, default=str)

    def sha1(self) -> bytes:
        """Return the digest of the record, so that people can find it in the file."""
        if self.digest:
            return bytes.fromhex(self.digest)
        return hashlib.sha1(self.content(), usedforsecurity=False).digest()


def walk(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Yield every node of a record with its path (`prompt[0].content`), without recursion, in document order."""
    stack: list[tuple[str, Json]] = [(path, value)]
    while stack:
        where, node = stack.pop()
        yield where, node
        if isinstance(node, dict):
            stack.extend((f"{where}.{key}" if where else key, item) for key, item in reversed(node.items()))
        elif isinstance(node, list):
            stack.extend((f"{where}[{index}]", node[index]) for index in reversed(range(len(node))))


def shown(value: object, length: int = 60) -> str:
    """Return a value as escaped ASCII, cut to a length: safe for terminals, logs and pages."""
    # A value can be megabytes or thousands of levels: only its beginning is ever written out.
    if isinstance(value, str | bytes):
        text = ascii(value[: length + 1])
    elif isinstance(value, list | dict):
        text = f"a list of {len(value)}" if isinstance(value, list) else f"an object with {len(value)} fields"
    else:
        text = ascii(value)
    return text if len(text) <= length else text[: length - 3] + "..."
