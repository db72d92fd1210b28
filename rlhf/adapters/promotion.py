"""How the aliases `champion` and `previous` move: the store's ledger decides, MLflow's aliases show it.

MLflow's own alias call lets the last writer win, without comparison or history. So each move first claims the next
number of an append-only ledger, which the store gives to one writer only, on this machine or another (`write_once`),
and then moves the aliases. Who claimed and died is finished by whoever comes next. Readers of `champion` see the old
version or the new one, never none.
"""

import fcntl
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from rlhf.adapters.mlflow_errors import write_row
from schemas.errors import NotFound, PromotionConflict
from schemas.registry import AliasMove


class RegisteredAliases(Protocol):
    """What is read of a registered model."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Return the version of each alias."""


class Aliases(Protocol):
    """The part of MLflow's client that moves aliases."""

    def get_registered_model(self, name: str) -> RegisteredAliases:
        """Read the aliases."""

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Move an alias."""

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Remove an alias."""

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Tag a version."""


class Records(Protocol):
    """The part of the object store that keeps the ledger."""

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a record, or None."""

    def write_once(self, key: str, data: bytes) -> bytes:
        """Write a record unless it exists; return the bytes that it then holds."""

    def list_keys(self, prefix: str) -> list[str]:
        """Return the keys of the records below a prefix, sorted."""


class Champions:
    """Who is and was champion of one registered model."""

    def __init__(self, registry: Aliases, records: Records, model: str) -> None:
        self._registry = registry
        self._records = records
        self._model = model
        self._prefix = f"registry/{model}"

    def moves(self) -> tuple[AliasMove, ...]:
        """Return the ledger, oldest first."""
        keys = [key for key in self._records.list_keys(self._prefix) if key.endswith(".json")]
        found = (self._records.read(key) for key in keys)
        return tuple(AliasMove.model_validate_json(content) for content in found if content)

    def promote(
        self, version: int, *, expected: int | None, by: str, why: str, evidence: str | None = None
    ) -> AliasMove:
        """Make a version champion and the champion previous; `expected` is the champion seen by the caller.

        `expected=0` says that there was none, `None` that any will do. Raises PromotionConflict if it moved.
        """
        last, held = self._settle()
        champion = held.get("champion")
        if expected is not None and (champion or 0) != expected:
            found = f"version {champion}" if champion else "no version"
            wanted = f"version {expected}" if expected else "no version"
            raise PromotionConflict(
                f"The champion of {self._model} is {found}, {wanted} was expected: somebody promoted meanwhile. "
                "Compare with the champion of now (`rlhf models`, or run the recipe again) and promote again."
            )
        if champion == version:
            return self._move("promote", version, champion, by, why, evidence, number=0)
        return self._claim(self._move("promote", version, champion, by, why, evidence, number=last + 1))

    def rollback(self, *, by: str, why: str) -> AliasMove:
        """Make the previous champion the champion again."""
        last, held = self._settle()
        champion, previous = held.get("champion"), held.get("previous")
        if not previous or previous == champion:
            raise NotFound(
                f"{self._model} has no previous champion to go back to; its aliases are {held or 'none'}. "
                "Name a version: `rlhf promote VERSION`."
            )
        return self._claim(self._move("rollback", previous, champion, by, why, None, number=last + 1))

    def _settle(self) -> tuple[int, dict[str, int]]:
        """Finish a move whose writer died between claim and aliases; return its number and the aliases.

        The number is read first: whoever claims after that takes the next one away from us.
        """
        last = self._last()
        if last and self._records.read(self._done(last)) is None:
            self._apply(AliasMove.model_validate_json(self._records.read(self._key(last)) or b""))
        held = self._registry.get_registered_model(self._model).aliases
        return last, {alias: int(version) for alias, version in held.items()}

    def _claim(self, move: AliasMove) -> AliasMove:
        content = move.model_dump_json().encode()
        held = self._records.write_once(self._key(move.number), content)
        if held != content:
            winner = AliasMove.model_validate_json(held)
            raise PromotionConflict(
                f"{winner.by} moved the champion of {self._model} to version {winner.version} at the same moment. "
                "Compare with the champion of now (`rlhf models`, or run the recipe again) and try again."
            )
        self._apply(move)
        return move

    def _apply(self, move: AliasMove) -> None:
        """Move the aliases, and again if a later move was claimed meanwhile: the last claim is what shows."""
        while True:
            self._show(move)
            self._records.write_once(self._done(move.number), b"{}")
            if (last := self._last()) <= move.number:
                return
            move = AliasMove.model_validate_json(self._records.read(self._key(last)) or b"")

    def _show(self, move: AliasMove) -> None:
        held = self._registry.get_registered_model(self._model).aliases
        if move.action == "promote":
            # In this order there is a champion at every moment.
            if move.replaced:
                self._point("previous", move.replaced)
            self._point("champion", move.version)
            if int(held.get("candidate") or 0) == move.version:
                self._registry.delete_registered_model_alias(self._model, "candidate")
            self._tag(
                move.version,
                promoted_at=move.at,
                promoted_by=move.by,
                promoted_because=move.why,
                promoted_over=str(move.replaced or "nothing"),
                promotion_evidence=move.evidence or "none",
            )
            return
        self._point("champion", move.version)
        if "previous" in held:
            self._registry.delete_registered_model_alias(self._model, "previous")
        if move.replaced:
            self._tag(
                move.replaced, rolled_back_at=move.at, rolled_back_by=move.by, rolled_back_because=move.why
            )

    def _point(self, alias: str, version: int) -> None:
        write_row(self._registry.set_registered_model_alias, self._model, alias, str(version))

    def _tag(self, version: int, **tags: str) -> None:
        for key, value in tags.items():
            write_row(self._registry.set_model_version_tag, self._model, str(version), key, value)

    def _move(
        self,
        action: Literal["promote", "rollback"],
        version: int,
        replaced: int | None,
        by: str,
        why: str,
        evidence: str | None,
        *,
        number: int,
    ) -> AliasMove:
        return AliasMove(
            number=number,
            action=action,
            version=version,
            replaced=replaced,
            by=by,
            why=why,
            evidence=evidence,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            claim=uuid.uuid4().hex,
        )

    def _last(self) -> int:
        keys = [key for key in self._records.list_keys(self._prefix) if key.endswith(".json")]
        return int(keys[-1].rpartition("/")[2].removesuffix(".json")) if keys else 0

    def _key(self, number: int) -> str:
        return f"{self._prefix}/{number:08d}.json"

    def _done(self, number: int) -> str:
        return f"{self._prefix}/{number:08d}.done"


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes of this machine out; the system frees the lock of a process that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
