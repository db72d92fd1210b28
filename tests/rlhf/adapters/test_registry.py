"""The registry on a real MLflow: SQLite here, a server of its own where processes race."""

import hashlib
import multiprocessing
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from rlhf.adapters.manifest import scan
from rlhf.adapters.object_store import open_store
from rlhf.adapters.registry import ModelRegistry
from rlhf.adapters.tracking import Tracking, connect
from schemas.errors import DigestMismatch, NotFound, PromotionConflict
from schemas.settings import Settings

pytestmark = pytest.mark.integration  # a new database takes seconds


def registry_of(settings: Settings, name: str) -> ModelRegistry:
    return connect(settings, "helpdesk").registry(name, open_store(settings.store, settings.cache))


def registered(settings: Settings, name: str, folder: Path, content: str) -> int:
    model = folder / content
    model.mkdir()
    (model / "model.safetensors").write_text(content)
    with connect(settings, "helpdesk").start_run("register", parent=None, tags={}) as run:
        run.log_folder(model, "models/ppo")
    files = f"sha256:{hashlib.sha256(scan(model).canonical()).hexdigest()}"
    return registry_of(settings, name).register(
        run_id=run.run_id,
        artifact_folder="models/ppo",
        tags={"digest": content, "files_digest": files, "gate_evidence": f"sha256:{content}"},
        description="a test",
    )


def test_versions_are_numbered_tagged_and_downloaded(
    settings: Settings, tracking: Tracking, tmp_path: Path
) -> None:
    registry = registry_of(settings, "numbered")
    assert registry.versions() == ()
    assert registered(settings, "numbered", tmp_path, "one") == 1
    assert registered(settings, "numbered", tmp_path, "two") == 2
    assert [version.version for version in registry.versions()] == [2, 1]
    first = registry.resolve("1")
    assert (first.model, first.tags["digest"], first.aliases) == ("numbered", "one", ())
    folder = registry.download(first, tmp_path / "downloaded")
    assert [(item.name, item.read_text()) for item in folder.iterdir()] == [("model.safetensors", "one")]
    assert "numbered" in tracking.models()


def test_champions_come_and_go(settings: Settings, tmp_path: Path) -> None:
    for content in ("one", "two"):
        registered(settings, "contested", tmp_path, content)
    registry = registry_of(settings, "contested")
    registry.propose(1)
    assert registry.resolve("candidate").version == 1
    registry.promote(1, expected=0, by="ann", why="first")
    registry.promote(2, expected=1)
    assert registry.resolve("champion").version == 2
    assert registry.resolve("previous").aliases == ("previous",)
    with pytest.raises(PromotionConflict, match="is version 2, version 1 was expected"):
        registry.promote(1, expected=1)
    assert registry.rollback(why="worse").version == 1
    assert registry.resolve("champion").version == 1
    with pytest.raises(NotFound, match="no previous champion"):
        registry.rollback()
    assert [(move.version, move.evidence) for move in registry.moves()] == [
        (1, "sha256:one"), (2, "sha256:two"), (1, None),
    ]  # fmt: skip
    assert registry.resolve("1").tags["promoted_by"] == "ann"
    assert "@" in registry.resolve("2").tags["promoted_by"]


def test_a_version_whose_files_changed_is_not_promoted_and_not_rolled_back_to(
    settings: Settings, tmp_path: Path
) -> None:
    for content in ("one", "two"):
        registered(settings, "tampered", tmp_path, content)
    registry = registry_of(settings, "tampered")
    registry.promote(1)
    with registry.files(registry.resolve("2")) as folder:
        weights = folder / "model.safetensors"
        weights.write_text("tvo")
        with pytest.raises(DigestMismatch, match="tampered version 2"):
            registry.promote(2, expected=1)
        assert registry.resolve("champion").version == 1
        weights.write_text("two")
    registry.promote(2, expected=1)
    with registry.files(registry.resolve("1")) as folder:
        (folder / "more.bin").write_text("x")
    with pytest.raises(DigestMismatch, match="tampered version 1"):
        registry.rollback()
    assert registry.resolve("champion").version == 2


def test_what_does_not_exist_is_named_with_what_does(settings: Settings, tmp_path: Path) -> None:
    registered(settings, "single", tmp_path, "one")
    registry = registry_of(settings, "single")
    registry.promote(1)
    with pytest.raises(NotFound, match=r"no version or alias '7'; there are: 1 \(champion\)"):
        registry.resolve("7")
    with pytest.raises(NotFound, match="there are: none"):
        registry_of(settings, "unknown").promote(1)
    with pytest.raises(NotFound, match="unknown"):
        registry_of(settings, "unknown").rollback()


def _promote(settings: Settings, name: str, version: int, barrier: Barrier, outcomes: "Queue[Any]") -> None:
    registry = registry_of(settings, name)
    registry.resolve("champion")
    barrier.wait()
    try:
        registry.promote(version, expected=1, by=f"racer {version}")
        outcomes.put(version)
    except PromotionConflict:
        outcomes.put(None)


@pytest.mark.parametrize("machines", [1, 4])
def test_of_racing_promoters_exactly_one_wins(server: str, tmp_path: Path, machines: int) -> None:
    """On one machine a lock keeps them apart; on several (each with its own locks) the ledger alone does."""
    home, name = tmp_path / "home", f"race-{machines}"
    shared = Settings(home=home, store=str(tmp_path / "store"), tracking_uri=server)
    for content in ("one", "two", "three", "four", "five"):
        registered(shared, name, tmp_path, content)
    registry = registry_of(shared, name)
    folder = registry.download(registry.resolve("3"), tmp_path / "downloaded")
    assert (folder / "model.safetensors").read_text() == "three"
    registry.promote(1, expected=0)

    context = multiprocessing.get_context("fork")
    outcomes, barrier = context.Queue(), context.Barrier(4)
    racers = []
    for version in (2, 3, 4, 5):
        settings = (
            shared if machines == 1 else shared.model_copy(update={"home": tmp_path / f"home{version}"})
        )
        racers.append(context.Process(target=_promote, args=(settings, name, version, barrier, outcomes)))
    for racer in racers:
        racer.start()
    found = [outcomes.get(timeout=120) for _ in racers]
    for racer in racers:
        racer.join()
    winners = [version for version in found if version]
    assert len(winners) == 1
    assert registry.resolve("champion").version == winners[0]
    assert registry.resolve("previous").version == 1
    assert [move.version for move in registry.moves()] == [1, winners[0]]
    assert registry.resolve(str(winners[0])).tags["promoted_by"] == f"racer {winners[0]}"
