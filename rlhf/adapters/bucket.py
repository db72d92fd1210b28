"""A store in an S3 bucket: in parallel parts, tried again while the service is busy, encrypted as the environment says.

S3 endpoint, region and credentials come from boto3's own variables and files (AWS_ENDPOINT_URL, AWS_PROFILE, ...). The client makes a
request AWS_MAX_ATTEMPTS (5) times within seconds, and all threads of it together some forty repetitions at most; so an outage is
outlasted here, by the clock: what failed is done again for RLHF_STORE_PATIENCE (90) seconds.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from rlhf.adapters.manifest import COMPUTE_AGAIN
from rlhf.adapters.patience import patiently
from rlhf.adapters.places import safe_key, whole_file
from schemas.errors import ArtifactMissing, NotFound, StoreRefused, StoreUnreachable
from schemas.settings import Settings

if TYPE_CHECKING:
    from botocore.client import BaseClient

_ABSENT = {"404", "NoSuchKey", "NotFound"}
_REFUSED = {
    "403", "AccessDenied", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidBucketName", "NoSuchBucket",
    "SignatureDoesNotMatch", "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound",
}  # fmt: skip
"""Trying again would not help."""
_TAKEN = {"412", "PreconditionFailed", "ConditionalRequestConflict"}
READ_SECONDS = 60.0
"""A service that says nothing for so long does not answer."""
_ATTEMPTS = 5
P = ParamSpec("P")
T = TypeVar("T")


def _again(method: "Callable[Concatenate[Bucket, P], T]") -> "Callable[Concatenate[Bucket, P], T]":
    """Have an operation, which must be one that may be repeated, done again while the service does not answer."""

    @wraps(method)
    def patient(self: "Bucket", /, *arguments: P.args, **named: P.kwargs) -> T:
        return patiently(self.patience, lambda: method(self, *arguments, **named), StoreUnreachable)

    return patient


class Bucket:
    """A prefix of an S3 bucket; boto3 is imported when the first one is opened."""

    def __init__(self, root: str, local: Path) -> None:
        import boto3
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config

        self.uri, self.local = root.rstrip("/"), local
        self._name, _, prefix = self.uri.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        attempts = int(os.environ.get("AWS_MAX_ATTEMPTS") or _ATTEMPTS)
        config = Config(
            signature_version="s3v4", connect_timeout=5, read_timeout=READ_SECONDS, s3={"addressing_style": "path"},
            retries={"mode": "standard", "total_max_attempts": attempts},
        )  # fmt: skip
        settings = Settings()
        self.patience = settings.store_patience
        self._encrypted = _encryption(settings)
        part = 16 << 20
        self._transfer = TransferConfig(multipart_threshold=part, multipart_chunksize=part, max_concurrency=8)
        with self._errors():
            self._client: BaseClient = boto3.client("s3", config=config)

    @_again
    def read(self, key: str) -> bytes | None:
        """Return the bytes, or None."""
        with self._errors():
            try:
                answer = self._client.get_object(Bucket=self._name, Key=self._prefix + key)
                data: bytes = answer["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None
            return data

    @_again
    def write(self, key: str, data: bytes) -> None:
        """Replace the bytes."""
        with self._errors():
            self._client.put_object(Bucket=self._name, Key=self._prefix + key, Body=data, **self._encrypted)

    def write_once(self, key: str, data: bytes) -> bytes:
        """Write unless the key exists; on a server that ignores conditions the last of two racing wins."""
        if (held := self.read(key)) is not None:
            return held
        self._write_unless_there(key, data)
        held = self.read(key)
        return data if held is None else held

    @_again
    def _write_unless_there(self, key: str, data: bytes) -> None:
        from botocore.exceptions import ClientError

        condition = {"IfNoneMatch": "*", **self._encrypted}
        with self._errors():
            try:
                self._client.put_object(Bucket=self._name, Key=self._prefix + key, Body=data, **condition)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code == "NotImplemented":
                    self.write(key, data)
                elif code not in _TAKEN:
                    raise

    @_again
    def send(self, source: Path, key: str) -> None:
        """Copy a file in, in parallel parts when it is large."""
        with self._errors():
            self._client.upload_file(
                str(source), self._name, self._prefix + key, Config=self._transfer, ExtraArgs=self._encrypted
            )

    @_again
    def sha256(self, key: str) -> str:
        """Hash an object as it lies in the bucket, in hex."""
        digest = hashlib.sha256()
        with self._errors():
            answer = self._client.get_object(Bucket=self._name, Key=self._prefix + key)
            for block in answer["Body"].iter_chunks(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    @_again
    def bring(self, key: str) -> None:
        """Download the object below `local`; nothing appears there when it does not exist."""
        from botocore.exceptions import ClientError

        source = self._prefix + key
        with self._errors(), whole_file(self.local, safe_key(key)) as temporary:
            try:
                self._client.download_file(self._name, source, str(temporary), Config=self._transfer)
            except ClientError as error:
                if error.response["Error"]["Code"] not in _ABSENT:
                    raise
                raise ArtifactMissing(f"{self.uri}/{key} is not in the bucket. {COMPUTE_AGAIN}.") from error

    @_again
    def remove(self, key: str) -> None:
        """Remove the key, if it is there."""
        with self._errors():
            self._client.delete_object(Bucket=self._name, Key=self._prefix + key)

    def sizes(self, key: str) -> dict[str, int]:
        """Return the size of the key itself and of all keys below it."""
        return {name: item["Size"] for name, item in self._listed(key)}

    def written(self, key: str) -> dict[str, float]:
        """Return when the key itself and all keys below it were last written, in seconds since 1970."""
        return {name: item["LastModified"].timestamp() for name, item in self._listed(key)}

    def tags(self, key: str) -> dict[str, tuple[int, str]]:
        """Return size and entity tag of the key itself and of all keys below it."""
        return {name: (item["Size"], item["ETag"]) for name, item in self._listed(key)}

    @_again
    def _listed(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        wanted = self._prefix + key
        with self._errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=wanted)
            found = [item for page in pages for item in page.get("Contents", [])]
        return [
            (item["Key"].removeprefix(self._prefix), item)
            for item in found
            if not key or item["Key"] == wanted or item["Key"].startswith(f"{wanted}/")
        ]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        # Only the kind of error is quoted: a message of the service may repeat what was sent to it.
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            # An upload in parts wraps what was answered to it.
            said = error.__context__ if isinstance(error, Boto3Error) and error.__context__ else error
            kind = said.response["Error"]["Code"] if isinstance(said, ClientError) else type(said).__name__
            message = (
                f"The bucket {self._name} answered {kind}; it was to be read or written. Check that it "
                "exists, AWS_ENDPOINT_URL, AWS_REGION, and the credentials that boto3 finds (AWS_PROFILE)."
            )
            raise (StoreRefused if kind in _REFUSED else StoreUnreachable)(message) from error


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
        if not (bucket.local / safe_key(key)).is_file():
            bucket.bring(key)
    return bucket.local / safe_key(prefix) if prefix else bucket.local


def _encryption(settings: Settings) -> dict[str, str]:
    """Return what each write asks for; without it the bucket's own default holds."""
    asked = {"ServerSideEncryption": settings.s3_encryption, "SSEKMSKeyId": settings.s3_kms_key}
    return {name: value for name, value in asked.items() if value}
