"""A comparison as a reviewer elsewhere sees it, and what the reviewer said."""

from typing import Literal

from schemas.record import Record

Choice = Literal["A", "B", "tie"]


class ReviewPair(Record):
    """Two responses to one prompt, A and B in the order in which they are shown."""

    key: str
    """Which responses of which item these are; the reviewer's verdict comes back under it."""
    prompt: list[dict[str, str]]
    a: str
    b: str


class Verdict(Record):
    """Which of the two somebody prefers."""

    key: str
    reviewer: str
    choice: Choice
