import hashlib
import json
import os
from pathlib import Path

import boto3
import pytest

from rlhf.adapters.export import LISTING, export
from rlhf.adapters.object_store import Bucket
from schemas.errors import ConfigError, DigestMismatch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small file, one in a folder below, and one that is sent in parts."""
    (tmp_path / "model/below").mkdir(parents=True)
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "model/below/a.txt").write_text("a")
    (tmp_path / "model/model.safetensors").write_bytes(os.urandom(20 << 20))
    return tmp_path / "model"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_folder_arrives_whole_with_a_listing_of_its_digests(folder: Path, tmp_path: Path) -> None:
    export(folder, str(tmp_path / "out/here"))
    out = tmp_path / "out/here"
    listed = {entry["path"]: entry["sha256"] for entry in json.loads((out / LISTING).read_bytes())["files"]}
    assert set(listed) == {"config.json", "below/a.txt", "model.safetensors"}
    for path, digest in listed.items():
        assert sha256((out / path).read_bytes()) == digest == sha256((folder / path).read_bytes())
    assert [item.name for item in out.parent.iterdir()] == ["here"]


def test_a_folder_that_is_not_empty_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(folder, str(tmp_path / "out"))  # an empty one will do
    with pytest.raises(ConfigError, match="is not an empty folder"):
        export(folder, str(tmp_path / "out"))


def test_a_bucket_gets_every_file_in_parts_where_large_and_the_listing_last(
    folder: Path, bucket: str
) -> None:
    manifest = export(folder, f"s3://{bucket}/models/one")
    client = boto3.client("s3")
    found = client.list_objects_v2(Bucket=bucket, Prefix="models/one/")["Contents"]
    assert {item["Key"].removeprefix("models/one/") for item in found} == {
        "config.json", "below/a.txt", "model.safetensors", LISTING,
    }  # fmt: skip
    for entry in manifest.files:
        data = client.get_object(Bucket=bucket, Key=f"models/one/{entry.path}")["Body"].read()
        assert sha256(data) == entry.sha256
    # An ETag that ends in the number of parts is that of a multipart upload.
    tag = client.head_object(Bucket=bucket, Key="models/one/model.safetensors")["ETag"]
    assert tag.strip('"').endswith("-2")
    with pytest.raises(ConfigError, match="name an empty prefix"):
        export(folder, f"s3://{bucket}/models/one")


def test_what_arrives_changed_is_not_called_done(
    folder: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Bucket.send

    def with_a_flipped_bit(self: Bucket, source: Path, key: str) -> None:
        data = source.read_bytes()
        source.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        send(self, source, key)

    monkeypatch.setattr(Bucket, "send", with_a_flipped_bit)
    with pytest.raises(DigestMismatch, match="Export again"):
        export(folder, f"s3://{bucket}/models/two")
    keys = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix="models/two/")["Contents"]
    assert LISTING not in {item["Key"].rpartition("/")[2] for item in keys}
