"""What is copied to the store, what is brought back, and what is left when a stage is done."""

from pathlib import Path

import pytest

from rlhf.adapters.object_store import ObjectStore, open_store
from tasks import checkpoints
from tasks.checkpoints import Checkpoints


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), tmp_path / "cache")


def save(folder: Path, number: int) -> None:
    (folder / f"iteration-{number:06d}").mkdir(parents=True)
    (folder / f"iteration-{number:06d}" / "state.json").write_text(str(number))


def test_another_machine_gets_the_latest_one(store: ObjectStore, tmp_path: Path) -> None:
    here, there = (Checkpoints(store, "ppo", "key", tmp_path / name) for name in ("here", "there"))
    assert here.restore() is None
    save(here.folder, 1)
    here.copy()
    save(here.folder, 2)
    here.copy()
    assert there.restore() == "iteration-000002"
    assert (there.folder / "iteration-000002" / "state.json").read_text() == "2"
    # The one before is gone from the store.
    assert len(store.artifacts()) == 1
    save(there.folder, 3)
    assert there.restore() == "iteration-000003"  # its own is later than the store's


def test_a_damaged_copy_is_not_used(store: ObjectStore, tmp_path: Path) -> None:
    here = Checkpoints(store, "ppo", "key", tmp_path / "here")
    save(here.folder, 1)
    here.copy()
    (path,) = (tmp_path / "store").glob("folders/*/*/state.json")
    path.write_text("")
    there = Checkpoints(store, "ppo", "key", tmp_path / "there")
    assert there.restore() is None
    assert not list(tmp_path.glob("there/*"))


def test_a_half_written_one_is_neither_copied_nor_gone_on_from(store: ObjectStore, tmp_path: Path) -> None:
    here = Checkpoints(store, "ppo", "key", tmp_path / "here")
    (here.folder / "partial-1").mkdir(parents=True)
    here.copy()
    assert store.list_keys("checkpoints") == []
    assert here.restore() is None


def test_copies_are_made_now_and_then(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Checkpoints(store, "ppo", "key", tmp_path / "here")
    there = Checkpoints(store, "ppo", "key", tmp_path / "there")
    here.copy_when_due()  # there is none yet
    save(here.folder, 1)
    here.copy_when_due()
    save(here.folder, 2)
    here.copy_when_due()
    assert there.restore() == "iteration-000001"
    monkeypatch.setattr(checkpoints, "COPY_SECONDS", 0.0)
    Checkpoints(store, "ppo", "key", here.folder).copy_when_due()
    assert there.restore() == "iteration-000002"


def test_a_finished_stage_leaves_none(store: ObjectStore, tmp_path: Path) -> None:
    here = Checkpoints(store, "ppo", "key", tmp_path / "here")
    save(here.folder, 1)
    here.copy()
    here.forget()
    assert store.list_keys("checkpoints") == []
    assert store.artifacts() == {}
    assert not here.folder.exists()
