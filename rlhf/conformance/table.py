"""The outcomes of several backends as a table of a document."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlhf.conformance.items import TITLES

BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
ORDER = ("error", "fail", "pass", "not offered")
"""A trainer's outcome for an item is the first of these among its checks."""


def rows(results: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Yield the table, line by line: an item per row, a backend per column, its trainers in the cells."""
    names = [result["backend"] for result in results]
    yield "| item | | " + " | ".join(names) + " |"
    yield "|---|---" * 1 + "|---" * len(names) + "|"
    for number, title in TITLES.items():
        yield f"| {number} | {title} | " + " | ".join(cell(result, number) for result in results) + " |"
    yield ""
    for result in results:
        versions = ", ".join(f"{name} {found}" for name, found in result["versions"].items())
        counts = {kind: 0 for kind in ORDER}
        for found in result["outcomes"]:
            counts[found["outcome"]] += 1
        told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        yield f"- {result['backend']}, {result['date']}: {versions}; of {len(result['outcomes'])} checks: {told}."


def by_trainer(result: Mapping[str, Any], number: int) -> dict[str, str]:
    """Return the outcome of each trainer for an item."""
    found: dict[str, list[str]] = {}
    for outcome in result["outcomes"]:
        if number in outcome["items"]:
            found.setdefault(outcome["trainer"] or "", []).append(outcome["outcome"])
    return {name: next(kind for kind in ORDER if kind in kinds) for name, kinds in found.items()}


def cell(result: Mapping[str, Any], number: int) -> str:
    """Return the cell of an item: `not offered`, or who passes and who does not."""
    trainers = by_trainer(result, number)
    parts = []
    for kind in ORDER[:-1]:
        names = [name or "all" for name, outcome in trainers.items() if outcome == kind]
        if names:
            word = f"**[{kind}](#item-{number})**" if kind == "fail" else kind
            parts.append(f"{word}: {', '.join(names)}")
    return " · ".join(parts) or "not offered"


def written_into(document: str, results: Sequence[Mapping[str, Any]]) -> str:
    """Return the document with the table between its two marks replaced."""
    before, rest = document.split(BEGIN)
    _, after = rest.split(END)
    return before + "\n".join([BEGIN, "", *rows(results), "", END]) + after
