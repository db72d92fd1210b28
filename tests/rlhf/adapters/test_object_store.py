import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from rlhf.adapters.object_store import ObjectStore, open_store
from schemas.errors import ArtifactMissing, DigestMismatch, NotFound
from schemas.refs import Ref


def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "nested").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "nested/weights.safetensors").write_bytes(bytes(range(256)) * 100)
    return folder


def publish(store: ObjectStore, path: Path) -> Ref:
    uri, digest = store.publish(path)
    return Ref(uri=uri, digest=digest)


def alter(ref: Ref, below: str, data: bytes | None) -> None:
    """Replace (or with None delete) a published file behind the store's back."""
    parts = urlsplit(ref.uri)
    if parts.scheme == "file":
        path = Path(unquote(parts.path)) / below if below else Path(unquote(parts.path))
        path.unlink() if data is None else path.write_bytes(data)
        return
    import boto3

    key = f"{parts.path[1:]}/{below}" if below else parts.path[1:]
    if data is None:
        boto3.client("s3").delete_object(Bucket=parts.netloc, Key=key)
    else:
        boto3.client("s3").put_object(Bucket=parts.netloc, Key=key, Body=data)


def test_a_file_comes_back_under_its_name_and_sha256(store: ObjectStore, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<html>")
    ref = publish(store, page)
    assert ref.digest == f"sha256:{hashlib.sha256(b'<html>').hexdigest()}"
    assert ref.uri.startswith(("file:///", "s3://"))
    assert store.exists(ref)
    assert store.fetch(ref).name == "page.html"
    assert store.fetch(ref).read_text() == "<html>"


def test_the_digest_of_a_folder_is_that_of_its_manifest(store: ObjectStore, tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    ref = publish(store, folder)
    weights = (folder / "nested/weights.safetensors").read_bytes()
    weights_sha = hashlib.sha256(weights).hexdigest()
    manifest = {
        "files": [
            {"path": "config.json", "size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()},
            {
                "path": "nested/weights.safetensors",
                "size": 25600,
                "sha256": weights_sha,
            },
        ]
    }
    canonical = json.dumps(manifest, separators=(",", ":")).encode()
    assert ref.digest == f"sha256:{hashlib.sha256(canonical).hexdigest()}"
    fetched = store.fetch(ref)
    assert sorted(item.relative_to(fetched).as_posix() for item in fetched.rglob("*") if item.is_file()) == [
        "config.json",
        "nested/weights.safetensors",
    ]
    assert (fetched / "nested/weights.safetensors").read_bytes() == weights


def test_equal_content_has_an_equal_ref_wherever_it_came_from(store: ObjectStore, tmp_path: Path) -> None:
    first = publish(store, model_folder(tmp_path / "a"))
    assert publish(store, model_folder(tmp_path / "b")) == first
    (tmp_path / "a/model/config.json").write_text("{ }")
    assert publish(store, tmp_path / "a/model").digest != first.digest


def test_concurrent_publishers_of_one_content_agree(store: ObjectStore, tmp_path: Path) -> None:
    folder, found = model_folder(tmp_path), []
    threads = [threading.Thread(target=lambda: found.append(publish(store, folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    store.fetch(found[0])


@pytest.mark.parametrize("damage", [b"[]", b"{", b""], ids=["altered", "truncated", "emptied"])
def test_damaged_bytes_are_refused_with_the_next_move_and_publishing_repairs_them(
    store: ObjectStore, tmp_path: Path, damage: bytes
) -> None:
    folder = model_folder(tmp_path)
    ref = publish(store, folder)
    alter(ref, "config.json", damage)
    with pytest.raises(DigestMismatch, match=r"config\.json.*wanted are 2 bytes.*rlhf run --fresh"):
        store.fetch(ref)
    assert store.exists(ref) == (len(damage) == 2)  # it looks at sizes only
    assert publish(store, folder) == ref
    assert (store.fetch(ref) / "config.json").read_text() == "{}"


def test_a_damaged_single_file_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    ref = publish(store, tmp_path / "table.parquet")
    alter(ref, "", b"PAR2")
    with pytest.raises(DigestMismatch, match=r"table\.parquet"):
        store.fetch(ref)


def test_a_missing_file_is_noticed(store: ObjectStore, tmp_path: Path) -> None:
    ref = publish(store, model_folder(tmp_path))
    alter(ref, "nested/weights.safetensors", None)
    assert not store.exists(ref)
    with pytest.raises(ArtifactMissing, match=r"weights\.safetensors.*rlhf run --fresh"):
        store.fetch(ref)


def test_a_ref_with_another_digest_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    ref = publish(store, model_folder(tmp_path))
    other = Ref(uri=ref.uri, digest=f"sha256:{'0' * 64}")
    assert not store.exists(other)
    with pytest.raises(DigestMismatch, match="the ref says sha256:0000"):
        store.fetch(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda uri: uri.replace("/folders/", "/folders/../folders/"),
        lambda uri: uri.replace("/folders/", "/%2e%2e/folders/"),
        lambda uri: f"{uri}/../../../../etc/passwd",
        lambda uri: f"{uri}/config.json",
        lambda uri: "file:///etc/passwd",
        lambda uri: "s3://another-bucket/folders/aa/" + "a" * 64,
        lambda uri: "https://example.org/" + uri.rpartition("/")[2],
    ],
)
def test_refs_that_leave_the_store_are_refused(
    store: ObjectStore, tmp_path: Path, change: Callable[[str], str]
) -> None:
    ref = publish(store, model_folder(tmp_path))
    with pytest.raises(ArtifactMissing, match="does not name an artifact of the store"):
        store.fetch(Ref(uri=change(ref.uri), digest=ref.digest))


def test_a_half_written_folder_does_not_exist(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model_folder(tmp_path)
    ref = publish(open_store(str(tmp_path / "to learn the ref"), tmp_path), folder)
    send, sent = store._place.send, []

    def breaks_at_the_second(source: Path, key: str) -> None:
        sent.append(key)
        if len(sent) == 2:
            raise OSError("No space left on device")
        send(source, key)

    monkeypatch.setattr(store._place, "send", breaks_at_the_second)
    with pytest.raises(OSError, match="No space"):
        store.publish(folder)
    half = Ref(uri=f"{store._place.uri}/folders/{ref.digest[7:9]}/{ref.digest[7:]}", digest=ref.digest)
    assert not store.exists(half)
    with pytest.raises(ArtifactMissing, match="never finished"):
        store.fetch(half)


def test_records_are_written_read_and_listed_by_key(store: ObjectStore) -> None:
    assert store.read("stages/sft/key.json") is None
    store.write("stages/sft/key.json", b"first")
    store.write("stages/sft/key.json", b"second")
    store.write("stages/sft2/key.json", b"other")
    assert store.read("stages/sft/key.json") == b"second"
    assert store.list_keys("stages/sft/") == ["stages/sft/key.json"]
    assert store.list_keys("nothing/") == []


def test_the_first_of_two_writers_of_one_record_wins(store: ObjectStore) -> None:
    assert store.write_once("promotions/1.json", b"mine") == b"mine"
    assert store.write_once("promotions/1.json", b"yours") == b"mine"
    assert store.read("promotions/1.json") == b"mine"


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a//b", "a/./b", ""])
def test_keys_that_leave_the_store_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(NotFound, match="is not a key"):
        store.write(key, b"")
    with pytest.raises(NotFound, match="is not a key"):
        store.read(key)


def test_symbolic_links_are_not_published(store: ObjectStore, tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(NotFound, match="link is a symbolic link"):
        store.publish(folder)


def test_what_is_not_there_or_empty_is_not_published(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, found in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "empty", "empty folder")):
        with pytest.raises(NotFound, match=found):
            store.publish(path)


def test_a_link_put_into_a_folder_store_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), tmp_path / "cache")
    ref = publish(store, model_folder(tmp_path))
    target = store.fetch(ref) / "config.json"
    (tmp_path / "same").write_text("{}")
    target.unlink()
    target.symlink_to(tmp_path / "same")
    with pytest.raises(DigestMismatch, match="symbolic link"):
        store.fetch(ref)


def test_a_file_that_nobody_published_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), tmp_path / "cache")
    ref = publish(store, model_folder(tmp_path))
    (store.fetch(ref) / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(DigestMismatch, match=r"pytorch_model\.bin is not in the manifest"):
        store.fetch(ref)


def test_writing_leaves_no_unfinished_file_behind(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), tmp_path / "cache")
    publish(store, model_folder(tmp_path))
    store.write_once("record", b"1")
    store.write_once("record", b"2")
    assert list((tmp_path / "store/.unfinished").iterdir()) == []
