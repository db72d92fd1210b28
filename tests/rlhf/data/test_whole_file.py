"""Measures of the whole file, against numbers worked out by hand."""

import hashlib
import json

import numpy as np
import polars as pl
import pytest

from rlhf.data.agreement import alpha, tabulate
from rlhf.data.bias import wilson
from rlhf.data.validation import validate_file, validate_files
from schemas.config.data import DataChecks
from schemas.config.rules import DEFAULT_RULES


def test_alpha_by_hand():
    # Krippendorff 2011, example with two observers and binary data: ten units, alpha = 0.095.
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    ratings = pl.DataFrame(
        [(item, rater, float(value)) for rater, given in (("a", first), ("b", second)) for item, value in enumerate(given)],
        schema=["item", "rater", "value"], orient="row",
    )  # fmt: skip
    counts, values = tabulate(ratings)
    assert alpha(counts, values, "nominal") == pytest.approx(0.095, abs=5e-4)


def test_alpha_of_ordered_values_by_hand():
    # Three items rated 1,1 / 2,3 / 3,3: totals are 2, 1, 3. Middles of the cumulated totals: 1, 2.5, 4.5.
    # Observed: one pair at (4.5-2.5)^2 = 4, twice, over (2-1): 8. Expected: (2*1*2.25 + 2*3*12.25 + 1*3*4)*2/5 = 36.
    counts = np.array([[2.0, 0, 0], [0, 1, 1], [0, 0, 2]])
    assert alpha(counts, np.array([1.0, 2, 3]), "ordinal") == pytest.approx(1 - 8 / 36)
    # The same without order: observed 2, expected (2*1 + 2*3 + 1*3)*2/5 = 4.4.
    assert alpha(counts, np.array([1.0, 2, 3]), "nominal") == pytest.approx(1 - 2 / 4.4)


def test_raters_who_always_agree_have_alpha_one():
    counts = np.array([[2.0, 0], [0, 2], [2, 0]])
    assert alpha(counts, np.array([0.0, 1]), "nominal") == 1.0


def test_wilson_by_hand():
    # n = 10, 8 wins, z = 1.96: centre (0.8 + 0.19208) / 1.38416 = 0.71674, half width 1.96 * sqrt(0.016 + 0.009604) / 1.38416.
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.49016, abs=1e-4), pytest.approx(0.94331, abs=1e-4))


def pairs(count, chosen="a good answer to question {}", rejected="a poor one for {}", **fields):
    return [
        {
            "prompt": f"What about number {i}?",
            "chosen": chosen.format(i),
            "rejected": rejected.format(i),
            **fields,
        }
        for i in range(count)
    ]


def test_longer_wins_says_how_often(validated):
    rows = pairs(8) + pairs(2, "ok {}", "a very long and winding answer to {}")
    report = validated(rows)
    assert report.statistics["longer_wins"] == pytest.approx(0.8)
    assert report.verdict == "accept"  # ten rows prove nothing


def test_a_model_without_meaning_finds_a_word_that_gives_the_label_away(validated):
    rows = [
        {
            "prompt": f"What about {i}?",
            "chosen": f"thanks for asking {i} word{i % 7}",
            "rejected": f"go away {i} word{i % 5}",
        }
        for i in range(200)
    ]
    report = validated(rows)
    assert report.statistics["bag_of_words"] == 1.0
    assert "label_artifact" in {finding.kind for finding in report.findings}


def test_position_bias_is_measured_where_there_are_positions(validated):
    rows = [
        {
            "instruction": f"Name {i} things.",
            "output_1": f"one {i}",
            "output_2": f"two {i}",
            "preference": 1 if i % 10 else 2,
        }
        for i in range(100)
    ]
    report = validated(rows)
    assert report.statistics["first_wins"] == pytest.approx(0.9)
    assert "position_bias" in {finding.kind for finding in report.findings}


def test_shares_refuse_only_files_that_are_large_enough_to_have_shares(validated):
    good, same = pairs(60), pairs(40, "same {}", "same {}")
    assert validated([*good[:6], *same[:4]]).verdict == "quarantine_rows"
    report = validated([*good, *same])
    assert report.verdict == "reject_file"
    assert (report.kept, report.quarantined) == (0, 100)
    relaxed = {"rules": {"identical_pair": {"reject_above": 0.5}}}
    assert validated([*good, *same], checks=relaxed).kept == 60


def test_a_recipe_changes_levels_and_keeps_the_other_defaults():
    rules = DataChecks.model_validate({"rules": {"pii": {"level": "quarantine"}}}).rules
    assert rules["pii"].level == "quarantine"
    assert rules["secret"] == DEFAULT_RULES["secret"]
    with pytest.raises(ValueError, match="no rule 'pji'"):
        DataChecks.model_validate({"rules": {"pji": {"level": "off"}}})


SPOILT = {
    "prompt": "Who are you?",
    "chosen": "Write to jane@example.org <|im_end|>",
    "rejected": "key AKIAIOSFODNN7EXAMPLE",
}


def test_kinds_can_be_repaired_instead_of_quarantined(validated, tmp_path):
    assert validated([SPOILT, *pairs(2)]).quarantined == 1
    report = validated([SPOILT, *pairs(2)], checks={"repair": ["template_token_in_content", "pii", "secret"]})
    assert (report.verdict, report.kept) == ("warn", 3)
    row = pl.read_parquet(tmp_path / "out" / "preferences.parquet").row(0, named=True)
    assert row["chosen"] == "Write to [personal data] < |im_end|>"
    assert row["rejected"] == "key [secret]"


def test_the_quarantine_shows_where_and_why_and_no_secret(validated, tmp_path):
    row = {
        "prompt": "Who?",
        "chosen": "\x1b[31m<b>jane@example.org</b> AKIAIOSFODNN7EXAMPLE",
        "rejected": "no",
    }
    raw = json.dumps(row).encode()
    validated(b"\n" + raw + b"\n" + json.dumps(pairs(1)[0]).encode())
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_bytes().splitlines()
    found = json.loads(line)
    assert line.isascii()
    assert (found["file"], found["row"], found["line"]) == ("rows.jsonl", 0, 2)
    assert {"control_char in chosen", "secret in chosen"} <= set(found["all"])
    assert found["sha1"] == hashlib.sha1(raw, usedforsecurity=False).hexdigest()
    assert found["text"].isprintable()
    assert "jane" not in found["text"]
    assert "AKIA" not in found["text"]


def test_equal_input_gives_equal_bytes_and_the_manifest_closes_the_books(tmp_path):
    rows = [*pairs(300), *pairs(3), {"prompt": "x", "chosen": "same", "rejected": "same"}, {"prompt": "only"}]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for out in ("one", "two"):
        validate_file(str(source), kind="preferences", out=tmp_path / out)
    for name in ("preferences.parquet", "quarantine.jsonl", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    records = manifest["records"]
    assert records == {"read": 305, "kept": 300, "quarantined": 2, "dropped": {"exact_duplicate": 3}}
    assert manifest["rows"] == 300
    assert manifest["parents"][0]["bytes"] == source.stat().st_size


def test_the_size_of_the_batches_changes_nothing(tmp_path, monkeypatch):
    rows = [
        *pairs(30),
        *pairs(5),
        {"prompt": "x", "chosen": "y", "rejected": "y"},
        *pairs(5, "a poor one for {}", "a good answer to question {}"),
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = validate_file(str(source), kind="preferences", out=tmp_path / "whole")
    monkeypatch.setattr("rlhf.data.validation._BATCH", 7)
    parts = validate_file(str(source), kind="preferences", out=tmp_path / "parts")
    assert whole == parts
    one, two = ((tmp_path / name / "preferences.parquet").read_bytes() for name in ("whole", "parts"))
    assert one == two
    assert (tmp_path / "whole" / "quarantine.jsonl").read_text() == (
        tmp_path / "parts" / "quarantine.jsonl"
    ).read_text()


@pytest.mark.integration
def test_several_processes_give_the_same(tmp_path, monkeypatch):
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in [*pairs(3000), *pairs(50)]))
    alone = validate_file(str(source), kind="preferences", out=tmp_path / "alone")
    monkeypatch.setattr("rlhf.data.validation._LARGE", 0)
    monkeypatch.setattr("rlhf.data.validation._BATCH", 512)
    monkeypatch.setattr("rlhf.data.validation.cores", lambda: 2)
    together = validate_file(str(source), kind="preferences", out=tmp_path / "together")
    assert alone == together
    assert alone.reasons == {"exact_duplicate": 50}


def test_repeats_are_found_across_the_files_of_a_table(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in [*pairs(3), {"prompt": name}])
        )
    report = validate_files(
        [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], kind="preferences", out=tmp_path / "out"
    )
    assert (report.rows, report.kept, report.quarantined, report.reasons) == (8, 3, 2, {"exact_duplicate": 3})
    places = {(f.file, f.row, f.line) for f in report.findings if f.kind == "exact_duplicate"}
    assert places == {("b.jsonl", row, row + 1) for row in range(3)}


def test_one_file_that_cannot_be_used_stops_the_table(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs(3)))
    (tmp_path / "b.jsonl").write_bytes(b"")
    report = validate_files([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], kind="preferences")
    assert (report.verdict, report.kept) == ("reject_file", 0)


def test_a_file_of_something_else_is_given_up(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_bytes(json.dumps(pairs(1)[0]).encode() + b"\n" + b"x\n" * 150)
    report = validate_file(str(source), kind="preferences")
    assert report.verdict == "reject_file"
    assert "invalid_json" in {finding.kind for finding in report.findings if finding.row is None}
