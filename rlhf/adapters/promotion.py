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


class RegisteredAliases(Protocol):
    """What is read of a registered model."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Return the version of each alias."""


class Registry(Protocol):
    """The part of MLflow's client that moves aliases."""

    def get_registered_model(self, name: str) -> RegisteredAliases:
        """Read the aliases."""

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Move an alias."""

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Remove an alias."""

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Tag a version."""


def promote(registry: Registry, model: str, version: int, *, expected: int | None) -> AliasMove:
    """Make a version champion and the champion previous; `expected` is the champion seen by the caller.

    `expected=0` says that there was none, `None` that any will do. The caller holds the lock.
    """
    champion = _held(registry, model).get("champion")
    if expected is not None and (champion or 0) != expected:
        found = f"version {champion}" if champion else "no version"
        wanted = f"version {expected}" if expected else "no version"
        raise PromotionConflict(
            f"The champion of {model} is {found}, {wanted} was expected: somebody promoted meanwhile. "
            "Compare with the champion of now (`rlhf models`) and promote again."
        )
    if champion == version:
        return AliasMove(version=version, replaced=champion)
    # In this order there is a champion at every moment.
    if champion:
        registry.set_registered_model_alias(model, "previous", str(champion))
    registry.set_registered_model_alias(model, "champion", str(version))
    registry.set_model_version_tag(model, str(version), "promoted_at", _now())
    registry.set_model_version_tag(model, str(version), "promoted_over", str(champion or "nothing"))
    return AliasMove(version=version, replaced=champion)


def rollback(registry: Registry, model: str) -> AliasMove:
    """Make the previous champion the champion again; the caller holds the lock."""
    held = _held(registry, model)
    champion, previous = held.get("champion"), held.get("previous")
    if not previous:
        raise NotFound(
            f"{model} has no previous champion to go back to; its aliases are {held or 'none'}. "
            "Name a version: `rlhf promote VERSION`."
        )
    registry.set_registered_model_alias(model, "champion", str(previous))
    registry.delete_registered_model_alias(model, "previous")
    if champion:
        registry.set_model_version_tag(model, str(champion), "rolled_back_at", _now())
    return AliasMove(version=previous, replaced=champion)


def _held(registry: Registry, model: str) -> dict[str, int]:
    held = registry.get_registered_model(model).aliases
    return {alias: int(version) for alias, version in held.items()}


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes of this machine out; the system frees the lock of a process that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
