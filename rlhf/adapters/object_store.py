"""Content-addressed artifacts in a folder or an S3 bucket: written whole or not at all, verified when read.

files/<ab>/<sha256>/<name>            a published file
folders/<ab>/<sha256>/<path>          the files of a published folder
manifests/<one of the two>.json       written last: an artifact without it does not exist
<anything else>                       small records, by `read` and `write`
"""

import hashlib
import re
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from rlhf.adapters.bucket import Bucket
from rlhf.adapters.manifest import COMPUTE_AGAIN, Entry, Manifest, check, parse, scan
from rlhf.adapters.places import Folder, Place, safe_key
from schemas.errors import ArtifactMissing, DigestMismatch
from schemas.refs import Ref

_ARTIFACT = re.compile(
    r"files/[0-9a-f]{2}/[0-9a-f]{64}/[A-Za-z0-9_-][A-Za-z0-9._-]*|folders/[0-9a-f]{2}/[0-9a-f]{64}"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """An artifact as it lies in the store."""

    ref: Ref
    size: int
    """Bytes of all its files."""
    written: float
    """When its last file was written, in seconds since 1970."""


class ObjectStore:
    """Publishes and fetches artifacts by content; keeps small records by key."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def publish(self, path: Path) -> tuple[str, str]:
        """Copy a file or folder in and return its URI and digest; equal content gets an equal URI."""
        manifest = scan(path)
        if path.is_dir():
            content = hashlib.sha256(manifest.canonical()).hexdigest()
            key = f"folders/{content[:2]}/{content}"
        else:
            content = manifest.files[0].sha256
            name = re.sub(r"[^A-Za-z0-9._-]|^\.", "_", path.name)
            key = f"files/{content[:2]}/{content}/{name}"
        for entry in manifest.files:
            if path.is_dir():
                self._place.send(path / entry.path, f"{key}/{entry.path}")
            else:
                self._place.send(path, key)
        self._place.write(f"manifests/{key}.json", manifest.canonical())
        return f"{self._place.uri}/{key}", f"sha256:{content}"

    def fetch(self, ref: Ref) -> Path:
        """Return a local path to the artifact after hashing every byte; the caller must not write there."""
        key = self._key(ref)
        local = self._place.local / key
        manifest = self._manifest(key, ref)
        for part, entry in _parts(key, manifest):
            target = self._place.local / part
            try:
                check(target, entry, uri=ref.uri, within=self._place.local)
            except (ArtifactMissing, DigestMismatch):
                # A download that is absent or damaged is fetched once more; in a folder this does nothing.
                self._place.bring(part)
                check(target, entry, uri=ref.uri, within=self._place.local)
        found = {item for item in local.rglob("*") if item.is_symlink() or item.is_file()}
        wanted = {self._place.local / part for part, _ in _parts(key, manifest)}
        if key.startswith("folders/") and (extra := sorted(found - wanted)):
            raise DigestMismatch(f"{extra[0]} is not in the manifest of {ref.uri}. Remove it.")
        return local

    def exists(self, ref: Ref) -> bool:
        """Tell whether every file is there and of the right size, without reading it."""
        key = self._key(ref)
        try:
            manifest = self._manifest(key, ref)
        except (ArtifactMissing, DigestMismatch):
            return False
        sizes = self._place.sizes(key)
        return all(sizes.get(part) == entry.size for part, entry in _parts(key, manifest))

    def read(self, key: str) -> bytes | None:
        """Return the bytes of a record, or None."""
        return self._place.read(safe_key(key))

    def write(self, key: str, data: bytes) -> None:
        """Replace a record; readers see the old bytes or the new ones, whole."""
        self._place.write(safe_key(key), data)

    def list_keys(self, prefix: str) -> list[str]:
        """Return the keys of the records below a prefix, sorted."""
        return sorted(self._place.sizes(safe_key(prefix.rstrip("/"))))

    def write_once(self, key: str, data: bytes) -> bytes:
        """Write a record unless it exists; return the bytes that it then holds, so that writers agree."""
        return self._place.write_once(safe_key(key), data)

    def remove(self, key: str) -> None:
        """Remove a record, if it is there."""
        self._place.remove(safe_key(key))

    def discard(self, ref: Ref) -> None:
        """Remove an artifact, its manifest first: what is left of it does not exist for any reader."""
        key = self._key(ref)
        self._place.remove(f"manifests/{key}.json")
        for part in self._place.sizes(key):
            self._place.remove(part)

    def written(self, prefix: str) -> dict[str, float]:
        """Return when the records below a prefix were last written, in seconds since 1970."""
        return self._place.written(safe_key(prefix.rstrip("/")))

    def artifacts(self) -> dict[str, Stored]:
        """Return every artifact, by its key: finished ones, and what a broken publication has left."""
        found: dict[str, Stored] = {}
        for kind, depth in (("files", 4), ("folders", 3)):
            written = self._place.written(kind)
            for name, size in self._place.sizes(kind).items():
                key = "/".join(name.split("/")[:depth])
                before = found.get(key, Stored(ref=self._ref(key), size=0, written=0.0))
                latest = max(before.written, written.get(name, time.time()))
                found[key] = Stored(ref=before.ref, size=before.size + size, written=latest)
        return found

    def _ref(self, key: str) -> Ref:
        return Ref(uri=f"{self._place.uri}/{key}", digest=f"sha256:{key.split('/')[2]}")

    def _key(self, ref: Ref) -> str:
        # S3 keys are taken as they stand; file URIs are percent-encoded.
        uri = unquote(ref.uri) if ref.uri.startswith("file://") else ref.uri
        root = unquote(self._place.uri) if self._place.uri.startswith("file://") else self._place.uri
        key = uri.removeprefix(f"{root}/")
        if key == uri or not _ARTIFACT.fullmatch(key):
            raise ArtifactMissing(
                f"{ref.uri} does not name an artifact of the store {root}. "
                "Set RLHF_STORE to the store that it was published in, or pass another ref."
            )
        return key

    def _manifest(self, key: str, ref: Ref) -> Manifest:
        data = self._place.read(f"manifests/{key}.json")
        if data is None:
            raise ArtifactMissing(f"{ref.uri} is not in the store, or was never finished. {COMPUTE_AGAIN}.")
        if key.startswith("folders/"):
            return parse(data, digest=ref.digest, uri=ref.uri)
        entry = parse(data, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", uri=ref.uri).files[0]
        return Manifest(files=(entry.model_copy(update={"sha256": ref.digest.removeprefix("sha256:")}),))


def open_store(root: str, cache: Path) -> ObjectStore:
    """Open the store of a folder or of `s3://bucket/prefix`; S3 objects are kept in `cache` once fetched."""
    if root.startswith("s3://"):
        return ObjectStore(Bucket(root, cache / "store" / hashlib.sha256(root.encode()).hexdigest()[:16]))
    return ObjectStore(Folder(Path(root).absolute()))


def _parts(key: str, manifest: Manifest) -> list[tuple[str, Entry]]:
    # The key of each file of an artifact.
    if key.startswith("files/"):
        return [(key, manifest.files[0])]
    return [(f"{key}/{entry.path}", entry) for entry in manifest.files]
