"""One registered model in MLflow: its versions, their files, and who of them is champion."""

import getpass
import hashlib
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from rlhf.adapters.manifest import scan
from rlhf.adapters.mlflow_errors import ask
from rlhf.adapters.promotion import Champions, Records, locked
from schemas.errors import DigestMismatch, NotFound
from schemas.registry import AliasMove, Version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel


class ModelRegistry:
    """Registers, finds, checks and promotes versions of one model; `records` keeps the ledger of promotions."""

    def __init__(self, client: "MlflowClient", model: str, locks: Path, records: Records) -> None:
        self.model = model
        self._client = client
        self._locks = locks
        self._champions = Champions(client, records, model)

    def register(
        self, *, run_id: str, artifact_folder: str, tags: Mapping[str, str], description: str
    ) -> int:
        """Make a folder of a run's artifacts the next version and return its number."""
        with locked(self._locks, f"register-{self.model}"):
            if self._found() is None:
                ask(self._client.create_registered_model, self.model)
        artifacts = ask(self._client.get_run, run_id).info.artifact_uri
        made = ask(
            self._client.create_model_version,
            self.model,
            f"{artifacts}/{artifact_folder}",
            run_id,
            tags=dict(tags),
            description=description,
        )
        return int(made.version)

    def versions(self) -> tuple[Version, ...]:
        """Return all versions, newest first; none when nobody registered one."""
        model = self._found()
        if model is None:
            return ()
        found = ask(self._client.search_model_versions, f"name = '{model.name}'", max_results=10_000)
        listed = (_version(item, model.aliases) for item in found)
        return tuple(sorted(listed, key=lambda version: version.version, reverse=True))

    def resolve(self, which: str) -> Version:
        """Return the version that a number or an alias names."""
        known = self.versions()
        for version in known:
            if which == str(version.version) or which in version.aliases:
                return version
        there = ", ".join(" ".join([str(v.version), *(f"({alias})" for alias in v.aliases)]) for v in known)
        raise NotFound(
            f"{self.model} has no version or alias {which!r}; there are: {there or 'none'}. "
            "See `rlhf models`, or run the recipe to register one."
        )

    def tag(self, version: int, **tags: str) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            ask(self._client.set_model_version_tag, self.model, str(version), key, value)

    def propose(self, version: int) -> None:
        """Move the alias `candidate`, which says what may become champion next."""
        ask(self._client.set_registered_model_alias, self.model, "candidate", str(version))

    def withdraw(self) -> None:
        """Remove the alias `candidate`."""
        ask(self._client.delete_registered_model_alias, self.model, "candidate")

    def promote(
        self, version: int, *, expected: int | None = None, by: str | None = None, why: str = "by hand"
    ) -> AliasMove:
        """Make a version champion after hashing its files, unless the champion is not the expected one by now."""
        found = self.resolve(str(version))
        self.verify(found)
        with locked(self._locks, f"promote-{self.model}"):
            return ask(
                self._champions.promote,
                version,
                expected=expected,
                by=by or somebody(),
                why=why,
                evidence=found.tags.get("gate_evidence"),
            )

    def rollback(self, *, by: str | None = None, why: str = "by hand") -> AliasMove:
        """Move `champion` back to `previous`, whose files must still be what they were."""
        previous = [version for version in self.versions() if "previous" in version.aliases]
        for version in previous:
            self.verify(version)
        with locked(self._locks, f"promote-{self.model}"):
            return ask(self._champions.rollback, by=by or somebody(), why=why)

    def moves(self) -> tuple[AliasMove, ...]:
        """Return every promotion and rollback, oldest first."""
        return self._champions.moves()

    def verify(self, version: Version) -> None:
        """Raise DigestMismatch unless the version's files are those that were registered."""
        wanted = version.tags.get("files_digest")
        with self.files(version) as folder:
            found = f"sha256:{hashlib.sha256(scan(folder).canonical()).hexdigest()}"
        if found != wanted:
            raise DigestMismatch(
                f"The files of {self.model} version {version.version} have {found}, registered were "
                f"{wanted or 'none with a digest'}. Register the model again: `rlhf run` with its recipe."
            )

    @contextmanager
    def files(self, version: Version) -> Iterator[Path]:
        """Give a folder with a version's files: the artifacts' own on this machine, else a copy for the while."""
        if version.source.startswith("file://"):
            local = Path(unquote(urlsplit(version.source).path))
            if not local.is_dir():
                raise NotFound(
                    f"The files of {self.model} version {version.version} are no longer at {local}. "
                    "Restore them, or register the model again with its recipe."
                )
            yield local
            return
        with tempfile.TemporaryDirectory() as folder:
            yield self.download(version, Path(folder))

    def download(self, version: Version, folder: Path) -> Path:
        """Copy a version's files below `folder` and return their folder."""
        from mlflow.artifacts import download_artifacts

        folder.mkdir(parents=True, exist_ok=True)
        found = ask(
            download_artifacts,
            artifact_uri=version.source,
            dst_path=str(folder),
            tracking_uri=self._client.tracking_uri,
        )
        return Path(found)

    def _found(self) -> "RegisteredModel | None":
        try:
            return ask(self._client.get_registered_model, self.model)
        except NotFound:
            return None


def somebody() -> str:
    """Return who runs this process, and where."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _version(found: "ModelVersion", aliases: Mapping[str, str]) -> Version:
    number = int(found.version)
    return Version(
        model=found.name,
        version=number,
        aliases=tuple(sorted(alias for alias, held in aliases.items() if int(held) == number)),
        tags=found.tags,
        run_id=found.run_id,
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        source=found.source,
    )
