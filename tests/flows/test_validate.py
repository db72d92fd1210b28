"""`rlhf validate`: output, exit codes, and what a person typed wrongly."""

import json

import pytest
from typer.testing import CliRunner

from flows.cli import app

GOOD = [
    {"prompt": f"What about {i}?", "chosen": f"This about {i}.", "rejected": f"Nothing on {i}."}
    for i in range(3)
]


@pytest.fixture
def validate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(rows, *arguments, kind="preferences"):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return CliRunner().invoke(app, ["validate", "rows.jsonl", "--as", kind, *arguments])

    return run


@pytest.mark.parametrize(
    ("rows", "code", "verdict"),
    [
        (GOOD, 0, "accept"),
        ([*GOOD, {"prompt": "Who?", "chosen": "a@example.org", "rejected": "b"}], 0, "warn"),
        ([*GOOD, {"prompt": "Who?"}], 3, "quarantine_rows"),
        ([{"foo": 1}, {"foo": 2}], 2, "reject_file"),
    ],
)
def test_the_exit_code_follows_the_verdict(rows, code, verdict, validate, tmp_path):
    result = validate(rows, "--json", "--out", "out")
    assert result.exit_code == code
    found = json.loads(result.stdout)
    assert found["verdict"] == verdict
    assert found["rows"] == found["kept"] + found["quarantined"] + found["dropped"]
    assert (tmp_path / "out" / "preferences.parquet").exists() == (verdict != "reject_file")
    assert {"kind", "row", "line", "field", "message"} <= {
        key for one in found["findings"] for key in one
    } or not found["findings"]


def test_columns_rules_and_other_files_can_be_named(validate, tmp_path):
    rows = [{"question": row["prompt"], "chosen": row["chosen"], "rejected": "a@example.org"} for row in GOOD]
    (tmp_path / "other.jsonl").write_text(json.dumps(GOOD[0]) + "\n")
    result = validate(rows, "--column", "prompt=question", "rules.pii.level=quarantine", "--json")
    assert (result.exit_code, json.loads(result.stdout)["quarantined"]) == (2, 3)
    result = validate(GOOD, "--against", "other.jsonl", "--json")
    assert (result.exit_code, json.loads(result.stdout)["kept"]) == (3, 2)


def test_what_is_wrong_in_the_command_is_said(validate):
    for result, said in (
        (validate(GOOD, kind="pairs"), "No kind 'pairs'"),
        (validate(GOOD, "rules.pji.level=off"), "no rule 'pji'"),
        (validate(GOOD, "languages"), "'languages' is not NAME=VALUE"),
    ):
        assert result.exit_code == 2
        assert said in result.output
