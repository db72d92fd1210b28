"""What readers hand to the layouts: one record per row, with everything that is wrong with it so far."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from schemas.reports import Finding

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a reader takes in before it refuses."""

    row_bytes: int = 1_000_000
    nesting: int = 100
    digits: int = 400
    decompressed_bytes: int = 2_000_000_000
    compression_ratio: int = 200


class Refused(ValueError):
    """A file of which nothing may enter the pipeline, with the findings that say why."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(*findings)
        self.findings = findings


def refuse(kind: str, message: str, *, line: int | None = None, field: str | None = None) -> Refused:
    """Return the exception that rejects a whole file."""
    return Refused(Finding(kind=kind, line=line, field=field, message=message))


@dataclass(slots=True)
class Row:
    """One data record: where it stands in the file, its bytes, its value, and what is wrong with it."""

    row: int
    line: int | None
    raw: bytes
    """The record as it stands in the file; only its beginning where it is larger than the limit."""
    value: dict[str, Json] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    digest: str = ""
    """sha1 of the whole raw record, where `raw` is only its beginning."""
    fatal: bool = False
    """True: the row goes to quarantine."""

    def found(self, kind: str, where: str | None, message: str, *, fatal: bool = True) -> None:
        """Add a finding; a fatal one sends the row to quarantine."""
        self.findings.append(Finding(kind=kind, row=self.row, line=self.line, field=where, message=message))
        self.fatal = self.fatal or fatal

    def sha1(self) -> str:
        """Return the digest of the raw record, so that people can find it in the file."""
        return self.digest or hashlib.sha1(self.raw, usedforsecurity=False).hexdigest()


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
    text = ascii(value)
    return text if len(text) <= length else text[: length - 3] + "..."
