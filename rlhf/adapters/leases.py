"""Exclusive leases in the store: one process at a time does a piece of work, and a dead one holds nothing.

    leases/<name>/<number>.json    who held the lease as number 1, 2, ...; the last one is the holder

A number is taken by a write that only one process can win (`write_once`), and only after the holder before has released it
or is dead; so numbers are never taken away, and the last one decides. `rlhf gc` removes histories that nobody needs.
"""

from dataclasses import dataclass
from typing import Protocol

from rlhf.adapters import presence
from rlhf.adapters.presence import Watch
from schemas.process import Claim


class Records(presence.Records, Protocol):
    """The part of the object store that keeps the leases."""

    def write_once(self, key: str, data: bytes) -> bytes:
        """Write a record unless it exists; return the bytes that it then holds."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A piece of work that this process alone does."""

    records: Records
    key: str
    holder: str

    def release(self) -> None:
        """Let the next one have it."""
        self.records.write(self.key, Claim(holder=self.holder, released=True).model_dump_json().encode())


def claim(records: Records, name: str, holder: str, watch: Watch) -> Lease | str:
    """Take the lease for the process with this token, or return the token of the one that holds it."""
    number = _last(records, name)
    mine = Claim(holder=holder).model_dump_json().encode()
    while True:
        # A listing may be older than the records, so the numbers after it are looked at one by one.
        if number and (found := records.read(_key(name, number))):
            held = Claim.model_validate_json(found)
            if not held.released and held.holder != holder and watch.alive(held.holder):
                return held.holder
        number += 1
        if records.write_once(_key(name, number), mine) == mine:
            return Lease(records, _key(name, number), holder)


def held(records: Records, name: str, watch: Watch) -> bool:
    """Tell whether somebody who may be at work holds the lease."""
    number = _last(records, name)
    content = records.read(_key(name, number)) if number else None
    if content is None:
        return False
    last = Claim.model_validate_json(content)
    return not last.released and watch.alive(last.holder)


def _last(records: Records, name: str) -> int:
    keys = records.list_keys(f"leases/{name}")
    return int(keys[-1].rpartition("/")[2].removesuffix(".json")) if keys else 0


def _key(name: str, number: int) -> str:
    return f"leases/{name}/{number:08d}.json"
