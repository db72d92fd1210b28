"""What a published file or folder consists of: path, size and sha256 of each file, and one digest for all."""

import hashlib
from pathlib import Path

from pydantic import ValidationError, field_validator

from schemas.errors import ArtifactMissing, DigestMismatch, NotFound
from schemas.record import Record

COMPUTE_AGAIN = "`rlhf run --fresh` computes it again"


class Entry(Record):
    """One file; `path` is relative to the folder, with `/`; that of a single file is its name."""

    path: str
    size: int
    sha256: str

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if path.startswith("/") or {"..", ".", ""} & set(path.split("/")):
            raise ValueError(f"{path!r} leaves the folder")
        return path


class Manifest(Record):
    """The files of one published artifact, sorted by path."""

    files: tuple[Entry, ...]

    def canonical(self) -> bytes:
        """Return the bytes whose sha256 is the digest of a folder."""
        return self.model_dump_json().encode()


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scan(path: Path) -> Manifest:
    """List a file, or all files below a folder; symbolic links are refused, since they may lead anywhere."""
    if not path.exists():
        raise NotFound(f"{path} does not exist; a file or a folder was to be published. Check the path.")
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    if links := [item for item in found if item.is_symlink()]:
        raise NotFound(f"{links[0]} is a symbolic link; only real files are published. Copy the file there.")
    files = [item for item in found if item.is_file()]
    if not files:
        raise NotFound(f"{path} is an empty folder; at least one file was to be published.")
    entries = [
        Entry(
            path=item.relative_to(path).as_posix() if path.is_dir() else item.name,
            size=item.stat().st_size,
            sha256=sha256_of(item),
        )
        for item in files
    ]
    return Manifest(files=tuple(sorted(entries, key=lambda entry: entry.path)))


def parse(data: bytes, *, digest: str, uri: str) -> Manifest:
    """Read the manifest of a folder; it must be the one that the digest names."""
    found = hashlib.sha256(data).hexdigest()
    if f"sha256:{found}" != digest:
        raise DigestMismatch(
            f"The manifest of {uri} has sha256:{found}, the ref says {digest}. "
            f"{COMPUTE_AGAIN}, or restore the file."
        )
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise DigestMismatch(f"The manifest of {uri} is not one of this program. {COMPUTE_AGAIN}.") from error


def check(path: Path, entry: Entry, *, uri: str, within: Path) -> None:
    """Raise unless `path` is a real file below `within` that has the entry's size and sha256."""
    if path.resolve() != within.resolve() / path.relative_to(within):
        raise DigestMismatch(
            f"{path} (of {uri}) is reached through a symbolic link; a real file was wanted. {COMPUTE_AGAIN}."
        )
    if not path.is_file():
        raise ArtifactMissing(f"{path} (of {uri}) does not exist. {COMPUTE_AGAIN}, or restore the file.")
    size, found = path.stat().st_size, ""
    if size != entry.size or (found := sha256_of(path)) != entry.sha256:
        raise DigestMismatch(
            f"{path} (of {uri}) has {size} bytes with sha256:{found or '(not read)'}, wanted are "
            f"{entry.size} bytes with sha256:{entry.sha256}. {COMPUTE_AGAIN}, or restore the file."
        )
