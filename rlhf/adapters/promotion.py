"""How the aliases `champion` and `previous` move: compare first, then set, one process at a time.

MLflow's own alias call lets the last writer win, without comparison or history.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from schemas.errors import NotFound, PromotionConflict
from schemas.registry import AliasMove


class Aliases(Protocol):
    """The aliases of one registered model."""

    model: str

    def read(self) -> Mapping[str, int]:
        """Return the version of each alias."""

    def set(self, alias: str, version: int) -> None:
        """Move an alias."""

    def remove(self, alias: str) -> None:
        """Remove an alias."""

    def tag(self, version: int, tags: Mapping[str, str]) -> None:
        """Tag a version."""


def promote(aliases: Aliases, version: int, *, expected: int | None) -> AliasMove:
    """Make a version champion and the champion previous; `expected` is the champion seen by the caller.

    `expected=0` says that there was none, `None` that any will do. The caller holds the lock.
    """
    champion = aliases.read().get("champion")
    if expected is not None and (champion or 0) != expected:
        found = f"version {champion}" if champion else "no version"
        wanted = f"version {expected}" if expected else "no version"
        raise PromotionConflict(
            f"The champion of {aliases.model} is {found}, {wanted} was expected: somebody promoted meanwhile. "
            "Compare with the new champion (`rlhf models`) and promote again."
        )
    if champion == version:
        return AliasMove(version=version, replaced=champion)
    # In this order there is a champion at every moment.
    if champion:
        aliases.set("previous", champion)
    aliases.set("champion", version)
    aliases.tag(version, {"promoted_at": _now(), "promoted_over": str(champion or "")})
    return AliasMove(version=version, replaced=champion)


def rollback(aliases: Aliases) -> AliasMove:
    """Make the previous champion the champion again; the caller holds the lock."""
    held = aliases.read()
    if "previous" not in held:
        raise NotFound(
            f"{aliases.model} has no previous champion to go back to; its aliases are {dict(held) or 'none'}. "
            "Name a version: `rlhf promote VERSION`."
        )
    champion = held.get("champion")
    aliases.set("champion", held["previous"])
    aliases.remove("previous")
    if champion:
        aliases.tag(champion, {"rolled_back_at": _now()})
    return AliasMove(version=held["previous"], replaced=champion)


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes of this machine out; the system frees the lock of a process that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
