"""Frozen records of the model registry."""

from datetime import datetime
from typing import Literal

from schemas.record import Record


class Version(Record):
    """One version of a registered model."""

    model: str
    version: int
    aliases: tuple[str, ...]
    tags: dict[str, str]
    run_id: str
    created: datetime
    source: str


class AliasMove(Record):
    """One line of the ledger: what a promotion or a rollback did to the alias `champion`, who did it, and why."""

    number: int
    """Counts the moves of a model from 1; 0: nothing moved, it was the champion."""
    action: Literal["promote", "rollback"]
    version: int
    """The champion since."""
    replaced: int | None
    """The champion before."""
    by: str
    why: str
    evidence: str | None
    """Digest of the gate's numbers, where a gate had judged the version."""
    at: str
    """UTC, ISO 8601."""
    claim: str
    """Tells one writer's line from another's."""


class MadeModel(Record):
    """A model, and the stage that made it."""

    stage: str
    uri: str
    digest: str


class Trace(Record):
    """What became of a file, a table, a model or a rating."""

    digest: str
    uri: str
    """Where it is; of a rating: its table of rankings."""
    rating: str | None = None
    """Digest (or its beginning) of a rating, where one was asked for."""
    models: tuple[MadeModel, ...]
    """Every model of which it is an ancestor, by whatever stages lie between."""
