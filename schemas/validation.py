"""What validation says of files and of what tokenisation does to them."""

from typing import Literal

from pydantic import Field

from schemas.record import Record


class Finding(Record):
    """One thing that validation found."""

    kind: str
    file: str | None = None
    """Name of the file, where several were read as one table."""
    row: int | None = None
    """Index of the record in the file, from 0."""
    line: int | None = None
    """Line of the file, from 1."""
    field: str | None = None
    message: str


class ValidationReport(Record):
    """What happened to one file: rows == kept + quarantined + dropped."""

    kind: str
    source: str
    format: str
    """The layout that was detected, in words (`trl preferences, conversational, JSON Lines, gzip`)."""
    verdict: Literal["accept", "warn", "quarantine_rows", "reject_file"]
    rows: int
    kept: int
    quarantined: int
    dropped: int = 0
    """Rows that were left out although nothing is wrong with them: exact duplicates, ties."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """Dropped rows by reason."""
    counts: dict[str, int] = Field(default_factory=dict)
    """Rows in which each kind was found; `findings` names the first thousand of each."""
    findings: tuple[Finding, ...] = ()
    statistics: dict[str, float] = Field(default_factory=dict)
    """Numbers worth showing: mean lengths, share of longer chosen responses and so on."""
    figures: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """Numbers to draw, by name: `length_edges_chosen`, `length_counts_chosen` and so on."""


class TokenPicture(Record):
    """The tokens around the place where the loss of a row begins."""

    tokens: tuple[str, ...]
    learnt: tuple[bool, ...]
    """Whether the loss counts each."""


class TokenCheck(Record):
    """What tokenisation does to a table, in rows of a sample (each side of a pair counts)."""

    rows: int
    """Rows of the table."""
    looked_at: int
    """Sequences in the sample."""
    double_bos: int = 0
    eos_wrong: int = 0
    """EOS missing at the end of a finished response, or elsewhere in it."""
    eos_not_learnt: int = 0
    """EOS outside the loss."""
    prompt_not_prefix: int = 0
    """The chat template renders prompt and response with another beginning than the prompt alone."""
    special_in_content: int = 0
    """Text of a response became a special token."""
    cut: int = 0
    """Longer than the maximal length."""
    cut_to_nothing: int = 0
    """No token of the response is left."""
    equal_after_cut: int = 0
    """Pairs whose responses are the same once cut."""
    pictures: tuple[TokenPicture, ...] = ()
