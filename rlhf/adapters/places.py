"""Where an object store keeps its bytes: what it needs of a place, and the place that is a folder."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from schemas.errors import NotFound


class Place(Protocol):
    """Keeps bytes under keys; each write is seen whole or not at all."""

    uri: str
    local: Path
    """Where `bring` puts files."""

    def read(self, key: str) -> bytes | None:
        """Return the bytes, or None."""

    def write(self, key: str, data: bytes) -> None:
        """Replace the bytes."""

    def write_once(self, key: str, data: bytes) -> bytes:
        """Write unless the key exists; return the bytes that it then holds."""

    def send(self, source: Path, key: str) -> None:
        """Copy a file in."""

    def bring(self, key: str) -> None:
        """Make the file available below `local`, if it is there."""

    def sizes(self, key: str) -> dict[str, int]:
        """Return the size of the key itself and of all keys below it."""

    def written(self, key: str) -> dict[str, float]:
        """Return when the key itself and all keys below it were last written, in seconds since 1970."""

    def remove(self, key: str) -> None:
        """Remove the key, if it is there."""


class Folder:
    """A folder of this machine, or one that several mount."""

    def __init__(self, root: Path) -> None:
        self.local = root
        self.uri = root.as_uri()

    def read(self, key: str) -> bytes | None:
        """Return the bytes, or None."""
        try:
            return (self.local / key).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, key: str, data: bytes) -> None:
        """Replace the bytes."""
        with whole_file(self.local, key) as temporary:
            temporary.write_bytes(data)

    def write_once(self, key: str, data: bytes) -> bytes:
        """Write unless the key exists; return the bytes that it then holds."""
        with suppress(FileExistsError), whole_file(self.local, key, replace=False) as temporary:
            temporary.write_bytes(data)
        return (self.local / key).read_bytes()

    def send(self, source: Path, key: str) -> None:
        """Copy a file in."""
        with whole_file(self.local, key) as temporary:
            shutil.copyfile(source, temporary)

    def bring(self, key: str) -> None:
        """Do nothing: the file is where it is wanted."""

    def sizes(self, key: str) -> dict[str, int]:
        """Return the size of the key itself and of all keys below it."""
        return {name: found.st_size for name, found in self._files(key)}

    def written(self, key: str) -> dict[str, float]:
        """Return when the key itself and all keys below it were last written, in seconds since 1970."""
        return {name: found.st_mtime for name, found in self._files(key)}

    def _files(self, key: str) -> Iterator[tuple[str, os.stat_result]]:
        path = self.local / key
        below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        for item in (path, *below):
            with suppress(FileNotFoundError):  # removed since it was listed
                if item.is_file():
                    yield item.relative_to(self.local).as_posix(), item.stat()

    def remove(self, key: str) -> None:
        """Remove the key, if it is there, and the folders that it leaves empty."""
        path = self.local / key
        path.unlink(missing_ok=True)
        for folder in path.relative_to(self.local).parents[:-1]:
            try:
                (self.local / folder).rmdir()
            except OSError:  # not empty, or gone
                break


@contextmanager
def whole_file(root: Path, key: str, *, replace: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to, which becomes `root/key` in one step, or vanishes on any error."""
    target, unfinished = root / key, root / ".unfinished"
    unfinished.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=unfinished)
    temporary = Path(name)
    try:
        os.close(handle)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 would hide a shared folder's files from colleagues
        _place(temporary, target, replace=replace)
        _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _place(temporary: Path, target: Path, *, replace: bool) -> None:
    while True:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if replace:
                temporary.replace(target)
            else:
                target.hardlink_to(temporary)
        except FileNotFoundError:
            if not temporary.exists():
                raise
            continue  # `remove` has found the new folder empty
        return


def _sync_folder(folder: Path) -> None:
    # Without this, a power cut may forget the new name although the bytes are safe.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def safe_key(key: str) -> str:
    """Return the key if it names something below a root; raise NotFound otherwise."""
    if {"", ".", ".."} & set(key.split("/")) or "\0" in key:
        raise NotFound(f"{key!r} is not a key: it is absolute, or leaves its folder. Use a relative name.")
    return key
