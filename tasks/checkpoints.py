"""The checkpoints of unfinished stages in the store, so that another machine goes on where this one stopped.

    checkpoints/<stage>/<key>.json    which artifact is the stage's latest checkpoint

A trainer writes to a folder of this machine, as often as it likes; the latest whole one is copied to the store now and then,
and when the stage is interrupted.
"""

import logging
import shutil
import time
from pathlib import Path

from rlhf.adapters.object_store import ObjectStore
from schemas.errors import ArtifactMissing, DigestMismatch, StoreUnreachable
from schemas.refs import Checkpoint

logger = logging.getLogger(__name__)

COPY_SECONDS = 20.0
"""What another machine computes again at the most, besides the step under way."""


class Checkpoints:
    """Of one stage: a folder that its trainer writes to, and the copy in the store."""

    def __init__(self, store: ObjectStore, stage: str, key: str, folder: Path) -> None:
        self.folder = folder
        self._store = store
        self._record = f"checkpoints/{stage}/{key}.json"
        self._due = 0.0

    def restore(self) -> str | None:
        """Bring the store's checkpoint into the folder unless a later one is there; return the name of what is there."""
        kept = self._kept()
        if kept and kept.name > (self._latest() or ""):
            try:
                source = self._store.fetch(kept)
            except (ArtifactMissing, DigestMismatch) as error:
                logger.warning("the checkpoint %s is not used: %s", kept.name, error)
            else:
                partial = self.folder / "partial-copy"
                shutil.rmtree(partial, ignore_errors=True)
                shutil.copytree(source, partial)
                partial.rename(self.folder / kept.name)
        return self._latest()

    def copy_when_due(self) -> None:
        """Copy the latest checkpoint to the store, unless that was done a short while ago; training goes on if it fails."""
        if time.monotonic() >= self._due and self._latest() is not None:
            self._due = time.monotonic() + COPY_SECONDS
            self.copy()

    def copy(self) -> None:
        """Copy the latest checkpoint to the store; a store that does not take it stops nothing."""
        try:
            kept, name = self._kept(), self._latest()
            if name is None or (kept and kept.name >= name):
                return
            uri, digest = self._store.publish(self.folder / name)
            new = Checkpoint(uri=uri, digest=digest, name=name)
            self._store.write(self._record, new.model_dump_json().encode())
            if kept and kept.digest != digest:
                self._store.discard(kept)
        except (StoreUnreachable, OSError) as error:
            logger.warning("the store did not take a checkpoint: %s", error)

    def forget(self) -> None:
        """Remove all of them: the stage is done."""
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            if kept := self._kept():
                self._store.remove(self._record)
                self._store.discard(kept)
        except StoreUnreachable as error:
            logger.warning("a checkpoint stays in the store: %s", error)

    def _kept(self) -> Checkpoint | None:
        content = self._store.read(self._record)
        return Checkpoint.model_validate_json(content) if content else None

    def _latest(self) -> str | None:
        names = sorted(path.name for path in self.folder.glob("*-*") if not path.name.startswith("partial-"))
        return names[-1] if names else None
