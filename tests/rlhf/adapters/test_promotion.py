import json
import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf.adapters.object_store import ObjectStore
from rlhf.adapters.promotion import Champions, locked
from schemas.errors import NotFound, PromotionConflict


class Memory:
    """A registry that notes every call, in order; it breaks down before the call whose turn is `breaks_at`."""

    def __init__(self, breaks_at: int | None = None, **aliases: int) -> None:
        self.aliases = {name: str(version) for name, version in aliases.items()}
        self.moves: list[tuple[str, str]] = []
        self.tags: dict[tuple[str, str], str] = {}
        self.breaks_at = breaks_at

    def get_registered_model(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(aliases=dict(self.aliases))

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        if len(self.moves) == self.breaks_at:
            raise ConnectionError
        self.aliases[alias] = version
        self.moves.append((alias, version))

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        del self.aliases[alias]

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.tags[version, key] = value


def promote(champions: Champions, version: int, expected: int | None = None) -> Any:
    return champions.promote(version, expected=expected, by="ann", why="better", evidence="sha256:e")


def test_the_first_champion_replaces_nobody(store: ObjectStore) -> None:
    registry = Memory()
    move = promote(Champions(registry, store, "m"), 1, expected=0)
    assert (move.number, move.version, move.replaced) == (1, 1, None)
    assert registry.aliases == {"champion": "1"}


def test_the_champion_becomes_previous_before_the_new_one_takes_its_place(store: ObjectStore) -> None:
    registry = Memory(champion=1, candidate=2)
    assert promote(Champions(registry, store, "m"), 2, expected=1).replaced == 1
    assert registry.moves == [("previous", "1"), ("champion", "2")]
    assert registry.aliases == {"previous": "1", "champion": "2"}  # and no longer a candidate


def test_who_moved_it_and_why_and_on_what_evidence_is_kept(store: ObjectStore) -> None:
    registry = Memory(champion=1)
    champions = Champions(registry, store, "m")
    promote(champions, 2)
    champions.rollback(by="bob", why="complaints")
    first, second = champions.moves()
    assert (first.action, first.by, first.why, first.evidence) == ("promote", "ann", "better", "sha256:e")
    assert (second.action, second.by, second.why, second.replaced) == ("rollback", "bob", "complaints", 2)
    assert registry.tags["2", "promoted_over"] == "1"
    assert registry.tags["2", "promoted_by"] == "ann"
    assert registry.tags["2", "promotion_evidence"] == "sha256:e"
    assert registry.tags["2", "rolled_back_because"] == "complaints"


def test_promoting_the_champion_keeps_the_way_back(store: ObjectStore) -> None:
    registry = Memory(champion=2, previous=1)
    champions = Champions(registry, store, "m")
    assert promote(champions, 2).number == 0
    assert registry.aliases == {"champion": "2", "previous": "1"}
    assert champions.moves() == ()


@pytest.mark.parametrize(("champion", "expected"), [({"champion": 3}, 1), ({"champion": 3}, 0), ({}, 1)])
def test_a_champion_that_moved_meanwhile_is_left_alone(
    store: ObjectStore, champion: dict[str, int], expected: int
) -> None:
    registry = Memory(**champion)
    with pytest.raises(PromotionConflict, match="was expected"):
        promote(Champions(registry, store, "m"), 2, expected=expected)
    assert registry.moves == []


def test_rollback_goes_back_once(store: ObjectStore) -> None:
    registry = Memory(champion=2, previous=1)
    champions = Champions(registry, store, "m")
    move = champions.rollback(by="ann", why="worse")
    assert (move.version, move.replaced) == (1, 2)
    assert registry.aliases == {"champion": "1"}
    with pytest.raises(NotFound, match="no previous champion"):
        champions.rollback(by="ann", why="worse")


@pytest.mark.parametrize("breaks_at", [0, 1])
def test_a_move_whose_writer_died_is_finished_by_the_next_one(store: ObjectStore, breaks_at: int) -> None:
    registry = Memory(breaks_at, champion=1)
    champions = Champions(registry, store, "m")
    with pytest.raises(ConnectionError):
        promote(champions, 2, expected=1)
    assert registry.aliases["champion"] == "1"  # readers still see the old one
    registry.breaks_at = None
    with pytest.raises(PromotionConflict, match="is version 2, version 1 was expected"):
        promote(champions, 3, expected=1)
    assert registry.aliases == {"champion": "2", "previous": "1"}


def test_an_alias_that_was_moved_by_hand_in_mlflow_is_believed(store: ObjectStore) -> None:
    registry = Memory()
    champions = Champions(registry, store, "m")
    promote(champions, 1)
    registry.aliases["champion"] = "4"
    assert promote(champions, 5, expected=4).replaced == 4


def test_the_claim_of_another_machine_is_not_overwritten(store: ObjectStore) -> None:
    class Elsewhere:
        """The store, into which another machine writes at the worst moment."""

        read, list_keys = store.read, store.list_keys

        def write_once(self, key: str, data: bytes) -> bytes:
            theirs = {**json.loads(data), "by": "eve", "version": 9, "claim": "another"}
            return store.write_once(key, json.dumps(theirs).encode())

    registry = Memory(champion=1)
    with pytest.raises(PromotionConflict, match="eve moved the champion of m to version 9"):
        promote(Champions(registry, Elsewhere(), "m"), 2, expected=1)
    assert registry.moves == []


def _add_one_under_the_lock(folder: Path, barrier: Barrier) -> None:
    barrier.wait()
    for _ in range(200):
        with locked(folder, "counter"):
            count = folder / "count"
            count.write_text(str(int(count.read_text()) + 1))


@pytest.mark.integration
def test_the_lock_keeps_other_processes_out(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_add_one_under_the_lock, args=(tmp_path, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "count").read_text() == "400"
