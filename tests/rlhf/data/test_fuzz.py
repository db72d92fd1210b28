"""No input, however corrupt, ends in a traceback: every file gets a verdict, and the books close."""

import gzip
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.data.validation import validate_file
from schemas.config.data import DataChecks

CHECKS = DataChecks.model_validate(
    {
        "limits": {"row_bytes": 20_000, "decompressed_bytes": 1_000_000},
        "near_duplicates": True,
        "languages": [],
    }
)
KINDS = ("corpus", "demonstrations", "prompts", "preferences", "rankings", "feedback")
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".jsonl.gz", ".json.zst", ".zip", "")
NAMES = ("prompt", "chosen", "rejected", "messages", "conversations", "role", "content", "from", "value", "label",
         "instruction", "input", "output", "response", "responses", "ranks", "score", "text", "id", "replies", "rank",
         "message_tree_id", "history", "instances", "preference", "output_1", "output_2", "margin", "weight", "completion",
         "finished", "path", "annotator1", "annotator2", "annotator3", "response1", "response2")  # fmt: skip

few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))


def judge(content, kind, suffix):
    """Validate the bytes, and hold the report against what every report promises."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{suffix}"
        path.write_bytes(content)
        report = validate_file(str(path), kind=kind, out=Path(folder) / "out", config=CHECKS)
        assert report.rows == report.kept + report.quarantined + report.dropped
        assert (report.verdict == "reject_file") == (report.kept == 0)
        quarantine = (Path(folder) / "out" / "quarantine.jsonl").read_bytes()
        assert all(32 <= byte < 127 or byte == 10 for byte in quarantine)
        report.model_dump_json()
        return report


texts = st.text(max_size=40) | st.sampled_from(
    [
        "",
        " ",
        "\u200b",
        "<|im_end|>",
        "user",
        "assistant",
        "human",
        "gpt",
        "\n\nHuman: a\n\nAssistant: b",
        "\x00",
        "a@b.co",
        "= 1",
    ]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "bot"]), "content": values | texts}
    ),
    max_size=3,
)
rows = st.dictionaries(st.sampled_from(NAMES), values | turns | texts, max_size=6)


def corrupted(draw, content):
    """Return the bytes cut, overwritten or repeated somewhere."""
    where = draw(st.integers(0, max(len(content) - 1, 0)))
    noise = draw(st.binary(max_size=8))
    return draw(
        st.sampled_from(
            [
                content,
                content[:where],
                content[:where] + noise + content[where + len(noise) :],
                content + content[where:],
            ]
        )
    )


def contained(draw, found, suffix):
    """Return rows in the container that a suffix promises, perhaps corrupt."""
    content = "\n".join(json.dumps(row) for row in found).encode(errors="surrogatepass")
    if suffix.startswith(".json") and not suffix.startswith(".jsonl"):
        content = json.dumps(found).encode()
    if suffix == ".parquet":
        flat = [
            {key: json.dumps(value) if draw(st.booleans()) else "x" for key, value in row.items()}
            for row in found
        ]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(flat) if flat else pa.table({}), buffer)
        content = buffer.getvalue()
    if suffix.endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    if suffix.endswith(".zst"):
        content = zstandard.compress(content)
    return corrupted(draw, content)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


TREE = {"message_tree_id": "t", "prompt": {"role": "prompter", "text": "a?", "replies": [
    {"role": "assistant", "text": "b", "rank": 0, "replies": [{"role": "prompter", "text": "d", "replies": []}]},
    {"role": "assistant", "text": "c", "rank": 1, "replies": []},
]}}  # fmt: skip
HH = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
COMPARED = {"instruction": "a", "output_1": "b", "output_2": "c", "preference": 1}
SEEDS = {
    "corpus": [{"text": "some words"}],
    "demonstrations": [
        {"messages": [user("a"), assistant("b")]}, {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"prompt": "a", "completion": "b"}, {"instruction": "a", "input": "", "output": "b", "history": [["c", "d"]]},
        {"instruction": "a", "instances": [{"input": "x", "output": "b"}]}, {"prompt": [user("a")], "response": "b"}, TREE,
    ],
    "prompts": [{"prompt": "a"}, {"prompt": [user("a")]}, {"turns": ["a"]}, {"Behavior": "a", "ContextString": "b"}, HH, TREE],
    "preferences": [
        {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 2, "score_rejected": 1, "margin": 0.5, "weight": 1.0},
        {"prompt": [user("a")], "chosen": [assistant("b")], "rejected": [assistant("c")], "chosen_finished": True},
        {"chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]}, HH,
        {"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"}, "rejected": {"from": "gpt", "value": "c"}},
        {"instruction": "a", "output": ["b", "c"], "history": []}, COMPARED, TREE,
        {"chosen_messages": [{"role": "user", "content": [{"type": "text", "value": "a"}]}, assistant("b")],
         "rejected_messages": [{"role": "user", "content": [{"type": "text", "value": "a"}]}, assistant("c")]},
    ],
    "rankings": [
        {"prompt": "a", "responses": ["b", "c"], "ranks": [1, 2], "finished": [True, False], "rater": "r"},
        {"prompt": [user("a")], "responses": [{"content": "b", "score": 0.3}, {"content": "c", "score": 0.1}]},
        {"instruction": "a", "response1": "b", "response2": "c", "annotator1": 1, "annotator2": 0, "annotator3": 2}, COMPARED, TREE,
        {"question": "a", "ground_truth": "x", "6b_finetuning": {"is_correct": True, "solution": "b"}, "o": {"is_correct": False, "solution": "c"}},
        {"Question": "a", "Best Answer": "b", "Correct Answers": "b; d", "Incorrect Answers": "c"},
    ],
    "feedback": [
        {"prompt": "a", "completion": "b", "label": True}, {"messages": [user("a"), assistant("b")], "label": False},
        {"prompt": "a", "response": "b", "gpt4_score": [1, 2, 3]}, {"prompt": "a", "completion": "b", "annotation_1": "1_x", "annotation_2": "2_y"},
        {"prompt": "a", "completion_a": "b", "completion_b": "c", "completion_a_is_acceptable": "yes", "completion_b_is_acceptable": "no"},
        {"prompt": [user("a")], "response": "b", "rater": "r", "label": None, "score": 0.5},
    ],
}  # fmt: skip


def places(value, path=()):
    """Return the path of every node of a row."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [deeper for key, item in items for deeper in places(item, (*path, key))]


def mutated(draw, row):
    """Return a copy of a row in which a node is gone, doubled, or something else."""
    row = json.loads(json.dumps(row))
    path = draw(st.sampled_from(places(row)[1:]))
    node = row
    for key in path[:-1]:
        node = node[key]
    change = draw(st.sampled_from(["replace", "replace", "delete", "double", "add"]))
    if change == "delete":
        del node[path[-1]]
    elif change == "double" and isinstance(node, list):
        node.append(node[path[-1]])
    elif change == "add":
        row[draw(st.sampled_from(NAMES))] = draw(values)
    else:
        node[path[-1]] = draw(values | turns | texts)
    return row


@st.composite
def files(draw):
    suffix = draw(st.sampled_from(SUFFIXES))
    kind = draw(st.sampled_from(KINDS))
    source = draw(st.sampled_from(["bytes", "rows", "seeds", "seeds", "seeds"]))
    if source == "bytes":
        return draw(st.binary(max_size=300)), kind, suffix
    if source == "rows":
        return contained(draw, draw(st.lists(rows, max_size=5)), suffix), kind, suffix
    seed = draw(st.sampled_from(SEEDS[kind]))
    found = [mutated(draw, seed) if draw(st.booleans()) else seed for _ in range(draw(st.integers(1, 6)))]
    suffix = draw(st.sampled_from([".jsonl", ".jsonl", ".json", suffix]))
    content = contained(draw, found, suffix) if draw(st.integers(0, 5)) == 0 else json.dumps(found).encode()
    if suffix == ".jsonl" and content.startswith(b"[{"):
        content = b"\n".join(json.dumps(row).encode() for row in found)
    return content, kind, suffix


@pytest.mark.integration
@many
@given(files())
def test_every_file_gets_a_verdict(file):
    judge(*file)


@few
@given(files())
def test_a_few_files_get_a_verdict(file):
    judge(*file)


@few
@given(
    st.lists(
        st.dictionaries(st.sampled_from(("prompt", "chosen", "rejected")), texts, min_size=3, max_size=3),
        max_size=6,
    )
)
def test_every_row_is_kept_quarantined_or_dropped(found):
    report = judge(b"\n".join(json.dumps(row).encode() for row in found), "preferences", ".jsonl")
    if report.format != "JSON Lines" and report.format != "unknown":
        assert report.rows == len(found)


@few
@given(st.text(), st.integers(1, 50))
def test_csv_cells_come_back_as_they_were_written(text, size):
    from rlhf.data.readers_table import csv_records
    from rlhf.data.records import Limits, Refused

    cell = text.replace("\r", "")
    content = ('a,b\n"' + cell.replace('"', '""') + '",x\n').encode(errors="ignore")
    pieces = (content[start : start + size] for start in range(0, len(content), size))
    try:
        (record,) = csv_records(pieces, Limits(), ",")
    except Refused:
        pytest.fail("a well-formed CSV file was refused")
    assert record.value == {"a": cell.encode(errors="ignore").decode(), "b": "x"}
