"""What only a bucket does: downloads, parts, credentials, servers that are down."""

import os
import random
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from rlhf.adapters import patience
from rlhf.adapters.bucket import download
from rlhf.adapters.object_store import ObjectStore, open_store
from schemas.errors import NotFound, StoreRefused, StoreUnreachable
from schemas.refs import Ref


def publish(store: ObjectStore, path: Path) -> Ref:
    uri, digest = store.publish(path)
    return Ref(uri=uri, digest=digest)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_damaged_download_is_fetched_again(bucket: str, tmp_path: Path, folder: Path) -> None:
    store = open_store(f"s3://{bucket}", tmp_path / "cache")
    ref = publish(store, folder)
    (store.fetch(ref) / "config.json").write_text("[]")
    assert (store.fetch(ref) / "config.json").read_text() == "{}"


def test_a_large_file_travels_in_parts(bucket: str, tmp_path: Path) -> None:
    import boto3

    (tmp_path / "big").write_bytes(b"0123456789abcdef" * (1 << 20) + b"tail")
    ref = publish(open_store(f"s3://{bucket}", tmp_path / "cache"), tmp_path / "big")
    head = boto3.client("s3").head_object(Bucket=bucket, Key=urlsplit(ref.uri).path[1:])
    assert head["ETag"].strip('"').endswith("-2")  # S3's mark of an object uploaded in two parts
    fetched = open_store(f"s3://{bucket}", tmp_path / "cache").fetch(ref)
    assert fetched.stat().st_size == (16 << 20) + 4


def test_inputs_are_downloaded_again_only_when_they_changed(bucket: str, tmp_path: Path) -> None:
    import boto3

    client = boto3.client("s3")
    for key, body in {"data/a.jsonl": b"1", "data/deep/b.jsonl": b"2", "data2/c.jsonl": b"3"}.items():
        client.put_object(Bucket=bucket, Key=key, Body=body)
    folder = download(f"s3://{bucket}/data/", tmp_path / "cache")
    names = sorted(item.relative_to(folder).as_posix() for item in folder.rglob("*") if item.is_file())
    assert names == ["a.jsonl", "deep/b.jsonl"]
    single = download(f"s3://{bucket}/data/a.jsonl", tmp_path / "cache")
    assert (single.name, single.read_bytes()) == ("a.jsonl", b"1")
    assert download(f"s3://{bucket}/data", tmp_path / "cache") == folder
    client.put_object(Bucket=bucket, Key="data/a.jsonl", Body=b"changed")
    assert (download(f"s3://{bucket}/data", tmp_path / "cache") / "a.jsonl").read_bytes() == b"changed"
    with pytest.raises(NotFound, match="no object at or below"):
        download(f"s3://{bucket}/nothing", tmp_path / "cache")


def test_an_object_key_cannot_leave_the_cache(bucket: str, tmp_path: Path) -> None:
    import boto3

    boto3.client("s3").put_object(Bucket=bucket, Key="data/../../evil", Body=b"1")
    with pytest.raises(NotFound, match="is not a key"):
        download(f"s3://{bucket}/data", tmp_path / "cache")


def test_a_bucket_that_does_not_exist_is_named_without_any_credential(
    bucket: str, tmp_path: Path, folder: Path
) -> None:
    store = open_store("s3://no-such-bucket/prefix", tmp_path / "cache")
    for use in (lambda: store.write("key", b""), lambda: publish(store, folder)):
        with pytest.raises(StoreRefused, match="bucket no-such-bucket answered NoSuchBucket") as caught:
            use()
        assert "canary" not in str(caught.value)


def test_a_server_that_is_down_is_reported(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RLHF_STORE_PATIENCE", "0")
    with pytest.raises(StoreUnreachable, match=r"EndpointConnectionError.*AWS_ENDPOINT_URL"):
        open_store(f"s3://{bucket}", tmp_path / "cache").read("key")


@pytest.mark.parametrize("code", ["SlowDown", "ServiceUnavailable"])
def test_a_store_that_is_busy_for_a_while_is_asked_again(
    bucket: str, breakable: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Of an upload in parts, too, whose eight threads have soon used up what the client repeats by itself."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", breakable.url)
    (folder / "big").write_bytes(bytes(8 * 16 << 20) if code == "ServiceUnavailable" else b"small")
    store = open_store(f"s3://{bucket}", tmp_path / "cache")
    breakable.code, breakable.broken = code, True
    mend = threading.Timer(3.0, lambda: setattr(breakable, "broken", False))
    mend.start()
    ref = publish(store, folder)
    mend.join()
    assert (store.fetch(ref) / "config.json").read_text() == "{}"


def test_an_outage_of_half_a_minute_is_outlasted_whatever_the_dice_say(
    bucket: str, breakable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real requests; the pauses between them are skipped, and the clock is put forward by them."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", breakable.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        breakable.broken = now[0] < 30

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: now[0])
    monkeypatch.setattr(patience, "time", clock)
    store = open_store(f"s3://{bucket}", tmp_path / "cache")
    for seed in range(8):
        random.seed(seed)
        now[0], breakable.broken = 0.0, True
        assert store.write_once(f"record-{seed}", b"1") == b"1"
        assert 30 <= now[0] < 45
    now[0], breakable.broken = 0.0, True
    monkeypatch.setattr(clock, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    with pytest.raises(StoreUnreachable):
        store.read("record-0")
    assert 90 <= now[0] < 105


def test_a_slow_store_is_waited_for(
    bucket: str, breakable: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", breakable.url)
    breakable.delay = 0.5
    store = open_store(f"s3://{bucket}", tmp_path / "cache")
    begun = time.monotonic()
    ref = publish(store, folder)
    assert (open_store(f"s3://{bucket}", tmp_path / "other").fetch(ref) / "config.json").read_text() == "{}"
    assert time.monotonic() - begun > 1


def test_an_answer_that_does_not_come_is_asked_for_again(
    bucket: str, breakable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", breakable.url)
    monkeypatch.setattr("rlhf.adapters.bucket.READ_SECONDS", 0.3)
    store = open_store(f"s3://{bucket}", tmp_path / "cache")
    store.write("key", b"1")
    breakable.delay = 1.0
    mend = threading.Timer(1.5, lambda: setattr(breakable, "delay", 0.0))
    mend.start()
    assert store.read("key") == b"1"
    mend.join()


def test_a_store_that_stays_busy_is_an_error_that_may_pass(
    bucket: str, breakable: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", breakable.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("RLHF_STORE_PATIENCE", "0.5")
    store = open_store(f"s3://{bucket}", tmp_path / "cache")
    breakable.broken = True
    for use in (lambda: store.write("key", b""), lambda: publish(store, folder)):
        with pytest.raises(StoreUnreachable, match="answered SlowDown"):
            use()


def test_a_download_that_breaks_goes_on_where_it_was(
    bucket: str, breakable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", breakable.url)
    content = os.urandom(40 << 20)
    (tmp_path / "big").write_bytes(content)
    ref = publish(open_store(f"s3://{bucket}", tmp_path / "cache"), tmp_path / "big")
    breakable.cut = 5 << 20
    fetched = open_store(f"s3://{bucket}", tmp_path / "cache").fetch(ref)
    assert fetched.read_bytes() == content
    # Three parts; the one that broke was asked for once more, and no other.
    assert len(set(breakable.ranges)) == 3
    assert len(breakable.ranges) == 4


def test_objects_are_encrypted_as_the_environment_says(
    bucket: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    monkeypatch.setenv("RLHF_S3_ENCRYPTION", "aws:kms")
    monkeypatch.setenv("RLHF_S3_KMS_KEY", "arn:aws:kms:eu-central-1:111122223333:key/abc")
    (tmp_path / "big").write_bytes(bytes(17 << 20))
    store = open_store(f"s3://{bucket}", tmp_path / "cache")
    ref, big = publish(store, folder), publish(store, tmp_path / "big")
    store.write("record", b"1")
    store.write_once("once", b"1")
    client = boto3.client("s3")
    for key in (f"{urlsplit(ref.uri).path[1:]}/config.json", urlsplit(big.uri).path[1:], "record", "once"):
        head = client.head_object(Bucket=bucket, Key=key)
        assert head["ServerSideEncryption"] == "aws:kms"
        assert head["SSEKMSKeyId"].endswith("key/abc")
    assert store.fetch(big).stat().st_size == 17 << 20
