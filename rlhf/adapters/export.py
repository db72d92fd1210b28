"""Hand a folder out, to another folder or to S3, and do not call it done before what arrived has been hashed."""

import os
import shutil
import uuid
from pathlib import Path

from rlhf.adapters.bucket import Bucket
from rlhf.adapters.manifest import Manifest, scan
from schemas.errors import ConfigError, DigestMismatch

LISTING = "manifest.json"
"""Written last: path, size and sha256 of every file. Where it lies, the export is whole."""


def export(folder: Path, destination: str) -> Manifest:
    """Copy a folder to a new folder or an empty `s3://bucket/prefix`; raise DigestMismatch if it arrives changed."""
    manifest = scan(folder)
    if destination.startswith("s3://"):
        _to_bucket(folder, destination, manifest)
    else:
        _to_folder(folder, Path(destination).expanduser().absolute(), manifest)
    return manifest


def _to_folder(folder: Path, target: Path, manifest: Manifest) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists and is not an empty folder; name another one, or empty it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        shutil.copytree(folder, beside)
        if scan(beside) != manifest:
            raise DigestMismatch(f"The copy of {folder} at {target} is not equal to it. Check the disk.")
        (beside / LISTING).write_bytes(manifest.canonical())
        os.replace(beside, target)  # noqa: PTH105 - Path.replace is the same; an empty folder gives way
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _to_bucket(folder: Path, destination: str, manifest: Manifest) -> None:
    bucket = Bucket(destination, folder)
    wanted = {entry.path: entry.size for entry in manifest.files}
    if other := sorted(bucket.sizes("").items() - {*wanted.items()}):
        raise ConfigError(
            f"{destination} holds {other[0][0]}, which is none of the files to export; name an empty prefix."
        )
    for entry in manifest.files:
        bucket.send(folder / entry.path, entry.path)
        if (found := bucket.sha256(entry.path)) != entry.sha256:
            raise DigestMismatch(
                f"{destination}/{entry.path} has sha256:{found}, sent was sha256:{entry.sha256}. Export again."
            )
    bucket.write(LISTING, manifest.canonical())
