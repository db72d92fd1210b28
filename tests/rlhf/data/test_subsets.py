import gzip
import json

import polars as pl

from rlhf.data.subsets import with_subsets


def _pairs():
    return pl.DataFrame({"chosen": ["good", "fine "], "rejected": ["bad", "poor"]})


def test_subsets_are_found_by_the_responses_in_any_format(tmp_path):
    rows = [
        {"prompt": "p", "chosen": " good", "rejected": "bad", "subset": "chat"},
        {"prompt": "p", "chosen": "gone", "rejected": "bad", "subset": "code"},
        {
            "prompt": "q",
            "chosen": [{"role": "assistant", "content": "fine"}],
            "rejected": "poor",
            "subset": "code",
        },
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write(lines)
    pl.DataFrame(rows[:2]).write_parquet(tmp_path / "c.parquet")
    assert with_subsets(_pairs(), [tmp_path / "a.jsonl"])["subset"].to_list() == ["chat", "code"]
    assert with_subsets(_pairs(), [tmp_path / "b.jsonl.gz"])["subset"].to_list() == ["chat", "code"]
    assert with_subsets(_pairs(), [tmp_path / "c.parquet"])["subset"].to_list() == ["chat", None]


def test_a_file_without_subsets_changes_nothing(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "chosen": "good", "rejected": "bad"}\n{broken\n')
    assert with_subsets(_pairs(), [tmp_path / "a.jsonl"]).columns == ["chosen", "rejected"]
