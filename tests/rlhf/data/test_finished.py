"""Whether a response ended by itself, on the way from a file to the canonical tables."""

import json

import polars as pl

from rlhf.data.validation import validate_file
from schemas.tables import polars_schema

PAIR = {"prompt": "When do you open?", "chosen": "At nine.", "rejected": "No idea."}
RANKING = {
    "prompt": "When do you open?",
    "responses": ["At nine.", "No idea.", "At n"],
    "rater": "r",
    "ranks": [1, 2, 2],
}


def _validate(tmp_path, kind, *rows):
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = validate_file(str(source), kind=kind, out=tmp_path / "out", max_quarantined=1.0)
    return report, pl.read_parquet(tmp_path / "out" / f"{kind}.parquet")


def test_responses_of_a_file_ended_by_themselves_unless_it_says_otherwise(tmp_path):
    other = {**PAIR, "prompt": "Where are you?", "rejected": "In the", "rejected_finished": False}
    _, table = _validate(tmp_path, "preferences", PAIR, other)
    assert table["chosen_finished"].to_list() == [True, True]
    assert table["rejected_finished"].to_list() == [True, False]
    _, table = _validate(
        tmp_path, "rankings", RANKING, {**RANKING, "rater": "s", "finished": [True, True, False]}
    )
    assert table["finished"].to_list() == [[True, True, True], [True, True, False]]


def test_what_is_neither_true_nor_false_is_refused(tmp_path):
    report, table = _validate(tmp_path, "preferences", PAIR, {**PAIR, "chosen_finished": "yes"})
    assert (report.quarantined, table.height) == (1, 1)
    assert report.findings[-1].field == "chosen_finished"
    report, table = _validate(tmp_path, "rankings", RANKING, {**RANKING, "finished": [True]})
    assert (report.quarantined, table.height) == (1, 1)
    assert report.findings[-1].field == "finished"


def test_a_published_table_of_rankings_can_be_given_back(tmp_path):
    _, table = _validate(tmp_path, "rankings", {**RANKING, "finished": [True, True, False]})
    table.write_parquet(tmp_path / "published.parquet")
    validate_file(str(tmp_path / "published.parquet"), kind="rankings", out=tmp_path / "again")
    again = pl.read_parquet(tmp_path / "again" / "rankings.parquet")
    assert again.schema == polars_schema("rankings")
    assert again.equals(table)
