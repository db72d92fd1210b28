import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlhf.adapters.promotion import locked, promote, rollback
from schemas.errors import NotFound, PromotionConflict
from schemas.registry import AliasMove


class Memory:
    """A registry that notes every call, in order."""

    def __init__(self, **aliases: int) -> None:
        self.aliases = {name: str(version) for name, version in aliases.items()}
        self.moves: list[tuple[str, str]] = []
        self.tags: dict[tuple[str, str], str] = {}

    def get_registered_model(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(aliases=dict(self.aliases))

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.aliases[alias] = version
        self.moves.append((alias, version))

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        del self.aliases[alias]

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.tags[version, key] = value


def test_the_first_champion_replaces_nobody() -> None:
    registry = Memory()
    assert promote(registry, "m", 1, expected=0) == AliasMove(version=1, replaced=None)
    assert registry.aliases == {"champion": "1"}


def test_the_champion_becomes_previous_before_the_new_one_takes_its_place() -> None:
    registry = Memory(champion=1)
    assert promote(registry, "m", 2, expected=1) == AliasMove(version=2, replaced=1)
    assert registry.moves == [("previous", "1"), ("champion", "2")]
    assert registry.tags["2", "promoted_over"] == "1"


def test_promoting_the_champion_keeps_the_way_back() -> None:
    registry = Memory(champion=2, previous=1)
    promote(registry, "m", 2, expected=None)
    assert registry.aliases == {"champion": "2", "previous": "1"}


@pytest.mark.parametrize(("champion", "expected"), [({"champion": 3}, 1), ({"champion": 3}, 0), ({}, 1)])
def test_a_champion_that_moved_meanwhile_is_left_alone(champion: dict[str, int], expected: int) -> None:
    registry = Memory(**champion)
    with pytest.raises(PromotionConflict, match="was expected"):
        promote(registry, "m", 2, expected=expected)
    assert registry.moves == []


def test_rollback_goes_back_once() -> None:
    registry = Memory(champion=2, previous=1)
    assert rollback(registry, "m") == AliasMove(version=1, replaced=2)
    assert registry.aliases == {"champion": "1"}
    with pytest.raises(NotFound, match="no previous champion"):
        rollback(registry, "m")


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
