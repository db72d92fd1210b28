"""Content-addressed artifacts in a folder or an S3 bucket: written whole or not at all, verified when read.

    files/<ab>/<sha256>/<name>            a published file
    folders/<ab>/<sha256>/<path>          the files of a published folder
    manifests/<one of the two>.json       written last: an artifact without it does not exist
    <anything else>                       small records, by `read` and `write`

S3 endpoint, region and credentials come from boto3's own variables and files (AWS_ENDPOINT_URL, AWS_PROFILE,
...); AWS_MAX_ATTEMPTS sets how often a throttled or failed request is made.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from rlhf.adapters.manifest import COMPUTE_AGAIN, Entry, Manifest, check, parse, scan
from rlhf.adapters.places import Folder, Place, whole_file
from schemas.errors import ArtifactMissing, DigestMismatch, NotFound, StoreUnreachable
from schemas.refs import Ref

if TYPE_CHECKING:
    from botocore.client import BaseClient

_ARTIFACT = re.compile(
    r"files/[0-9a-f]{2}/[0-9a-f]{64}/[A-Za-z0-9_-][A-Za-z0-9._-]*|folders/[0-9a-f]{2}/[0-9a-f]{64}"
)
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_TAKEN = {"412", "PreconditionFailed", "ConditionalRequestConflict"}


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
        return self._place.read(_safe(key))

    def write(self, key: str, data: bytes) -> None:
        """Replace a record; readers see the old bytes or the new ones, whole."""
        self._place.write(_safe(key), data)

    def list_keys(self, prefix: str) -> list[str]:
        """Return the keys of the records below a prefix, sorted."""
        return sorted(self._place.sizes(_safe(prefix.rstrip("/"))))

    def write_once(self, key: str, data: bytes) -> bytes:
        """Write a record unless it exists; return the bytes that it then holds, so that writers agree."""
        return self._place.write_once(_safe(key), data)

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


def download(uri: str, cache: Path) -> Path:
    """Copy `s3://bucket/key`, or all objects below `s3://bucket/prefix`, to a folder of `cache`."""
    name, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/")
    bucket = Bucket(f"s3://{name}", cache)
    listing = {key: tag for key, tag in bucket.tags(prefix).items() if not key.endswith("/")}
    listing = {prefix: listing[prefix]} if prefix in listing else listing
    if not listing:
        raise NotFound(f"There is no object at or below {uri}. Check the name and AWS_ENDPOINT_URL.")
    # Named by what the bucket says of its content: a changed input never hides behind an old download.
    version = hashlib.sha256(repr((name, sorted(listing.items()))).encode()).hexdigest()[:32]
    bucket.local = cache / "inputs" / version
    for key in listing:
        if not (bucket.local / _safe(key)).is_file():
            bucket.bring(key)
    return bucket.local / _safe(prefix) if prefix else bucket.local


class Bucket:
    """A prefix of an S3 bucket; boto3 is imported when the first one is opened."""

    def __init__(self, root: str, local: Path) -> None:
        import boto3
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config

        self.uri, self.local = root.rstrip("/"), local
        self._name, _, prefix = self.uri.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        config = Config(
            signature_version="s3v4", connect_timeout=5, read_timeout=60, retries={"mode": "standard"},
            s3={"addressing_style": "path"},
        )  # fmt: skip
        part = 16 << 20
        self._transfer = TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=8)
        with self._errors():
            self._client: BaseClient = boto3.client("s3", config=config)

    def read(self, key: str) -> bytes | None:
        """Return the bytes, or None."""
        with self._errors():
            try:
                answer = self._client.get_object(Bucket=self._name, Key=self._prefix + key)
                data: bytes = answer["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None
            return data

    def write(self, key: str, data: bytes) -> None:
        """Replace the bytes."""
        with self._errors():
            self._client.put_object(Bucket=self._name, Key=self._prefix + key, Body=data)

    def write_once(self, key: str, data: bytes) -> bytes:
        """Write unless the key exists; on a server that ignores conditions the last of two racing wins."""
        from botocore.exceptions import ClientError

        if (held := self.read(key)) is not None:
            return held
        with self._errors():
            try:
                self._client.put_object(Bucket=self._name, Key=self._prefix + key, Body=data, IfNoneMatch="*")
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code == "NotImplemented":
                    self.write(key, data)
                elif code not in _TAKEN:
                    raise
        held = self.read(key)
        return data if held is None else held

    def send(self, source: Path, key: str) -> None:
        """Copy a file in, in parallel parts when it is large."""
        with self._errors():
            self._client.upload_file(str(source), self._name, self._prefix + key, Config=self._transfer)

    def sha256(self, key: str) -> str:
        """Hash an object as it lies in the bucket, in hex."""
        digest = hashlib.sha256()
        with self._errors():
            answer = self._client.get_object(Bucket=self._name, Key=self._prefix + key)
            for block in answer["Body"].iter_chunks(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def bring(self, key: str) -> None:
        """Download the object below `local`; nothing appears there when it does not exist."""
        from botocore.exceptions import ClientError

        source = self._prefix + key
        with self._errors(), whole_file(self.local, _safe(key)) as temporary:
            try:
                self._client.download_file(self._name, source, str(temporary), Config=self._transfer)
            except ClientError as error:
                if error.response["Error"]["Code"] not in _ABSENT:
                    raise
                raise ArtifactMissing(f"{self.uri}/{key} is not in the bucket. {COMPUTE_AGAIN}.") from error

    def sizes(self, key: str) -> dict[str, int]:
        """Return the size of the key itself and of all keys below it."""
        return {name: size for name, (size, _) in self.tags(key).items()}

    def tags(self, key: str) -> dict[str, tuple[int, str]]:
        """Return size and entity tag of the key itself and of all keys below it."""
        wanted = self._prefix + key
        with self._errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=wanted)
            found = [item for page in pages for item in page.get("Contents", [])]
        return {
            item["Key"].removeprefix(self._prefix): (item["Size"], item["ETag"])
            for item in found
            if not key or item["Key"] == wanted or item["Key"].startswith(f"{wanted}/")
        }

    @contextmanager
    def _errors(self) -> Iterator[None]:
        # Only the kind of error is quoted: a message of the service may repeat what was sent to it.
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            kind = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
            raise StoreUnreachable(
                f"The bucket {self._name} answered {kind}; it was to be read or written. Check that it "
                "exists, AWS_ENDPOINT_URL, AWS_REGION, and the credentials that boto3 finds (AWS_PROFILE)."
            ) from error


def _parts(key: str, manifest: Manifest) -> list[tuple[str, Entry]]:
    # The key of each file of an artifact.
    if key.startswith("files/"):
        return [(key, manifest.files[0])]
    return [(f"{key}/{entry.path}", entry) for entry in manifest.files]


def _safe(key: str) -> str:
    if {"", ".", ".."} & set(key.split("/")) or "\0" in key:
        raise NotFound(f"{key!r} is not a key: it is absolute, or leaves its folder. Use a relative name.")
    return key
