"""Frozen records of the model registry."""

from datetime import datetime

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
    """What a promotion or a rollback did to the alias `champion`."""

    version: int
    """The champion now."""
    replaced: int | None
    """The champion before."""
