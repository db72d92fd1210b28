from pathlib import Path

import orjson
import pytest

from rlhf.data.chosen_rows import keep_rows
from schemas.errors import DataRejected

ROWS = 'id,prompt,label\n1,"kill a\nprocess",safe\n2,kill a man,unsafe\n3,shoot a photo,safe\n'


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "set.csv"
    path.write_text(ROWS)
    return path


def test_rows_that_meet_the_condition_are_kept_whole(sheet, tmp_path):
    kept = keep_rows(sheet, "label=safe", tmp_path / "kept.jsonl")
    rows = [orjson.loads(line) for line in kept.read_bytes().splitlines()]
    assert [(row["id"], row["prompt"]) for row in rows] == [("1", "kill a\nprocess"), ("3", "shoot a photo")]


def test_json_lines_are_filtered_too_and_broken_ones_are_not_kept(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text('{"prompt": "a", "group": 1}\n{broken\n{"prompt": "b", "group": 2}\n')
    kept = keep_rows(path, "group=2", tmp_path / "kept.jsonl")
    assert kept.read_bytes() == b'{"prompt":"b","group":2}\n'


def test_a_value_that_no_row_has_is_refused_with_those_that_there_are(sheet, tmp_path):
    with pytest.raises(DataRejected, match="has label=Safe; its 3 rows have label in safe, unsafe"):
        keep_rows(sheet, "label=Safe", tmp_path / "kept.jsonl")


def test_a_condition_without_a_column_is_refused(sheet, tmp_path):
    with pytest.raises(DataRejected, match=r"wanted set\.csv#column=value"):
        keep_rows(sheet, "safe", tmp_path / "kept.jsonl")
