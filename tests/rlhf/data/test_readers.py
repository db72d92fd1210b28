"""The same rows come out of every container, and a broken one costs only what is broken."""

import gzip
import hashlib
import io
import json
import pickle
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from datasets import Dataset

from rlhf.data.readers import open_source
from rlhf.data.readers_json import json_batches
from rlhf.data.readers_lines import line_batches
from rlhf.data.records import Found, Limits, Raw, Records, Refused
from schemas.errors import DataRejected

ROWS = [
    {"prompt": f"Is {i} prime?", "chosen": f"Yes, {i} is.", "rejected": f"No, {i} is not."} for i in (2, 3, 5)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def parquet():
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


FILES = {
    "a.jsonl": LINES,
    "a.json": json.dumps(ROWS, indent=2).encode(),
    "lines.json": LINES,
    "wrapped.json": json.dumps({"version": "1", "data": ROWS}, indent=1).encode(),
    "a.csv": ("prompt,chosen,rejected\n" + "".join(f'"{r["prompt"]}","{r["chosen"]}","{r["rejected"]}"\r\n' for r in ROWS)).encode(),
    "a.tsv": ("prompt\tchosen\trejected\n" + "".join("\t".join(r.values()) + "\n" for r in ROWS)).encode(),
    "a.parquet": parquet(),
    "a.jsonl.gz": gzip.compress(LINES),
    "two members.jsonl.gz": gzip.compress(LINES[:40]) + gzip.compress(LINES[40:]) + b"\0" * 16,
    "a.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "a.csv.gz": gzip.compress(b"prompt,chosen,rejected\n" + b"".join(",".join(f'"{v}"' for v in r.values()).encode() + b"\n" for r in ROWS)),
    "a.jsonl.zst": zstandard.compress(LINES),
    "two frames.jsonl.zst": zstandard.compress(LINES[:40]) + zstandard.compress(LINES[40:]),
    "no suffix": LINES,
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_container_gives_the_same_rows(name, validated):
    report = validated(FILES[name], name=name)
    assert (report.rows, report.kept) == (3, 3), report.findings
    assert ("gzip" in report.format) == name.endswith(".gz")
    assert ("zstd" in report.format) == name.endswith(".zst")


def test_a_saved_dataset_is_read_from_its_folder(tmp_path):
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    source = open_source(tmp_path / "saved", Limits())
    assert source.format == "saved dataset"
    assert [record.value for record in source.records] == ROWS


def test_a_saved_dataset_cannot_name_files_elsewhere(tmp_path):
    (tmp_path / "secret.arrow").write_bytes(b"x")
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../secret.arrow"}]}))
    with pytest.raises(Refused) as refused:
        list(open_source(folder, Limits()).records)
    assert refused.value.findings[0].kind == "path_traversal"


def in_pieces(content, size):
    return (content[start : start + size] for start in range(0, len(content), size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_size_of_the_pieces_changes_nothing(size):
    rows = [{"a": 'quote " and \\ and ] } , [ {', "b": [1, {"c": "\u2028"}]}, {"a": "x" * 300}, {"d": {}}]
    content = json.dumps(rows, indent=1, ensure_ascii=False).encode()
    found = list(chain.from_iterable(json_batches(in_pieces(content, size), Limits(), size=2)))
    assert [json.loads(record.data) for record in found] == rows
    # json.dumps writes the first item on line 2; it takes 9 lines.
    assert [record.line for record in found] == [2, 11, 14]
    lines = b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows)
    batches = line_batches(in_pieces(lines, size), Limits(), size=2)
    assert [[json.loads(record.data) for record in batch] for batch in batches] == [rows[:2], rows[2:]]


@pytest.mark.parametrize("size", [64, 1000])
@pytest.mark.parametrize("read", [json_batches, line_batches])
def test_a_giant_row_costs_itself_only(read, size):
    rows = [{"a": "small"}, {"a": "x" * 5000}, {"a": "last"}]
    content = (
        json.dumps(rows).encode()
        if read is json_batches
        else b"\n".join(json.dumps(r).encode() for r in rows)
    )
    found = list(chain.from_iterable(read(in_pieces(content, size), Limits(row_bytes=1000), size=2)))
    assert [record.defect and record.defect.kind for record in found] == [None, "row_too_large", None]
    assert len(found[1].data) <= 4096
    assert found[1].digest == hashlib.sha1(json.dumps(rows[1]).encode(), usedforsecurity=False).hexdigest()
    assert json.loads(found[2].data) == rows[2]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'[\n{"a": 1},\n', 3),
        (b'[{"a": 1},\n\n,{"a": 2}]', 3),
        (b'[{"a": 1}]\n[', 2),
        (b'[{"a": "never closed}]', 1),
    ],
)
def test_a_broken_array_says_on_which_line(content, line):
    with pytest.raises(Refused) as refused:
        list(json_batches(iter([content]), Limits(), size=2))
    assert (refused.value.findings[0].kind, refused.value.findings[0].line) == ("invalid_json", line)


def test_plain_text_becomes_documents_of_whole_paragraphs(validated):
    paragraph = "All work and no play makes a long paragraph that goes on and on. " * 20
    report = validated(
        f"{paragraph}\n\n".encode() * 10, kind="corpus", name="a.txt", checks={"near_duplicates": False}
    )
    # 1,301 characters each: four of them pass 4,000.
    assert report.rows == 3


@pytest.mark.parametrize(
    "records",
    [
        Records(),
        Records([Raw(1, b"a\nb"), Raw(None, b""), Raw(7, b"c")]),
        Records([Raw(1, b"a"), Raw(2, b"b", None, Found("row_too_large", "x"), "00")]),
        Records([Raw(None, b"", {"a": [1]})]),
    ],
)
def test_records_arrive_in_another_process_as_they_left(records):
    arrived = pickle.loads(pickle.dumps(records))  # noqa: S301 - our own
    assert arrived == records
    assert type(arrived) is Records


HOSTILE = b"\n".join(
    [
        b"",
        b"one",
        b" \t",
        b"two\r",
        b"\r",
        "\u2028 \u0085".encode(),
        b"g" * 90,
        b"h" * 700,
        b"",
        b"\xff\xfe",
        b"last",
    ]
)


def by_hand(content, limit):
    """Return (line, bytes, digest where too large) of each record, from the whole content at once."""
    for number, data in enumerate(content.split(b"\n"), 1):
        if len(data) > limit:
            yield number, data[:limit], hashlib.sha1(data, usedforsecurity=False).hexdigest()
        elif data.strip():
            yield number, data.removesuffix(b"\r"), ""


@pytest.mark.parametrize("end", [b"", b"\n", b"\n \n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_block_is_read_again_from_its_place(size, mark, end, tmp_path, monkeypatch):
    monkeypatch.setattr("rlhf.data.streams.PIECE", 64)
    content, limits = HOSTILE + end, Limits(row_bytes=80)
    plain, packed = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz"
    plain.write_bytes(mark + content)
    packed.write_bytes(gzip.compress(mark + content))
    for path in (plain, packed):
        batches = list(open_source(path, limits, size).batches)
        assert all(len(batch) == len(list(batch)) <= size for batch in batches)
        arrived = pickle.loads(pickle.dumps(batches))  # noqa: S301 - our own
        records = list(chain.from_iterable(arrived))
        assert all(len(raw.data) > 80 for raw in records if raw.defect)
        assert [(raw.line, raw.data[:80], raw.digest) for raw in records] == list(by_hand(content, 80))


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)
    (batch,) = open_source(path, Limits()).batches
    path.write_bytes(LINES[:-10].replace(b"\n", b" "))
    with pytest.raises(DataRejected, match="changed while it was read"):
        list(batch)
