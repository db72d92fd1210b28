"""Sources become files of this machine, and nothing outside the data folder."""

import json
import os
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from rlhf.data import hub
from rlhf.data.fetch import resolve
from schemas.errors import ConfigError, DataRejected, NotFound

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    for name in ("b.jsonl", "a.jsonl.gz", "notes.md", "deep/c.parquet", "deep/dataset_info.json"):
        (data / name).write_bytes(b"x")
    return data


def names(files, folder):
    return [file.relative_to(folder).as_posix() for file in files]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("b.jsonl", ["b.jsonl"]),
        (".", ["a.jsonl.gz", "b.jsonl", "deep/c.parquet"]),
        ("*.jsonl*", ["a.jsonl.gz", "b.jsonl"]),
        ("**/*.parquet", ["deep/c.parquet"]),
    ],
)
def test_files_folders_and_patterns_are_found_in_order(source, found, folder, tmp_path):
    assert names(resolve(source, folder, tmp_path), folder) == found


def test_what_is_not_there_is_said_with_the_place(folder, tmp_path):
    with pytest.raises(NotFound, match=r"no data file at 'nothing\.jsonl' \(looked in"):
        resolve("nothing.jsonl", folder, tmp_path)


def test_names_and_links_do_not_leave_the_folder(folder, tmp_path):
    (tmp_path / "outside.jsonl").write_bytes(b"x")
    (folder / "link.jsonl").symlink_to(tmp_path / "outside.jsonl")
    for source in ("../outside.jsonl", "link.jsonl", "*.jsonl", "."):
        with pytest.raises(DataRejected, match="path_traversal"):
            resolve(source, folder, tmp_path)
    assert resolve(str(tmp_path / "outside.jsonl"), folder, tmp_path) == [tmp_path / "outside.jsonl"]


def test_a_saved_dataset_is_one_source(tmp_path):
    rows = Dataset.from_list([{"prompt": "a"}])
    rows.save_to_disk(tmp_path / "one")
    DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "two")
    assert resolve("one", tmp_path, tmp_path) == [tmp_path / "one"]
    assert resolve("two/test", tmp_path, tmp_path) == [tmp_path / "two" / "test"]
    with pytest.raises(NotFound, match="splits test, train"):
        resolve("two", tmp_path, tmp_path)


@pytest.fixture
def hub_cache(tmp_path):
    """Return a cache as the hub's client leaves it, with one dataset at one commit."""
    repository = tmp_path / "hub" / "datasets--someone--pairs"
    snapshot = repository / "snapshots" / COMMIT
    for name in (
        "README.md",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "test.jsonl",
    ):
        blob = repository / "blobs" / name.replace("/", "_")
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_text(json.dumps({"prompt": name}))
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("test.jsonl", ["test.jsonl"]),
        ("test", ["test.jsonl"]),
        ("train", ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]),
        ("data/*-00001-*", ["data/train-00001-of-00002.parquet"]),
    ],
)
def test_a_dataset_of_the_hub_is_taken_from_its_cache(part, found, hub_cache):
    files = hub.download_dataset(f"hf://someone/pairs@{COMMIT}/{part}", hub_cache)
    root = hub_cache / "datasets--someone--pairs" / "snapshots" / COMMIT
    assert [Path(file).relative_to(root).as_posix() for file in files] == found


def test_a_revision_must_be_named():
    with pytest.raises(ConfigError, match="name the revision"):
        hub.parse("hf://someone/pairs/train")
    assert hub.parse("hf://someone/pairs@refs/convert/parquet/default/train/0000.parquet") == (
        "someone/pairs", "refs/convert/parquet", "default/train/0000.parquet",
    )  # fmt: skip


@pytest.mark.integration
def test_objects_of_a_bucket_are_fetched_once_and_again_when_they_change(bucket, tmp_path):
    import boto3

    client = boto3.client("s3")
    for name in ("data/b.jsonl", "data/a.jsonl", "data/notes.md"):
        client.put_object(Bucket=bucket, Key=name, Body=name.encode())
    found = resolve(f"s3://{bucket}/data", tmp_path, tmp_path / "cache")
    assert [path.name for path in found] == ["a.jsonl", "b.jsonl"]
    assert found[0].read_bytes() == b"data/a.jsonl"
    assert resolve(f"s3://{bucket}/data", tmp_path, tmp_path / "cache") == found
    client.put_object(Bucket=bucket, Key="data/a.jsonl", Body=b"changed")
    (again,) = resolve(f"s3://{bucket}/data/a.jsonl", tmp_path, tmp_path / "cache")
    assert again.read_bytes() == b"changed"
