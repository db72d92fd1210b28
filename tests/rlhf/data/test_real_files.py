"""Public data sets as people have them: counts that were found by reading the files with other programs."""

from pathlib import Path

import pytest

from rlhf.data.validation import validate_file

FOLDER = Path(__file__).parents[4] / "shared" / "data"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no data sets at {FOLDER}"),
]


@pytest.mark.parametrize(
    ("file", "kind", "rows", "kept", "quarantined"),
    [
        # 11 rows cannot be split; the conversion to TRL's layout has the other 1,673.
        ("preferences/hh_rlhf_harmless_base_test.jsonl.gz", "preferences", 1684, 1673, 11),
        ("preferences/hh_rlhf_harmless_base_test.trl.jsonl.gz", "preferences", 1673, 1673, 0),
        # 3 identical pairs each, which the conversions leave out.
        ("preferences/oasst_rm_zh.json", "preferences", 600, 597, 3),
        ("preferences/rasbt_instruction_preference.json", "preferences", 807, 804, 3),
        # A line separator inside a string is no end of line.
        ("prompts/arena_hard_v2.0_question.jsonl.gz", "prompts", 563, 563, 0),
        ("sft/gsm8k_train_2k.messages.parquet", "demonstrations", 1511, 1511, 0),
        ("prompts/harmbench_behaviors_text.csv", "prompts", 301, 301, 0),
    ],
)
def test_counts_agree(file, kind, rows, kept, quarantined):
    report = validate_file(str(FOLDER / file), kind=kind)
    assert (report.rows, report.kept, report.quarantined) == (rows, kept, quarantined)


@pytest.mark.parametrize(
    ("file", "kind", "name", "low", "high"),
    [
        ("preferences/alpaca_eval_pairs.trl.jsonl.gz", "preferences", "longer_wins", 0.79, 0.83),
        ("preferences/hh_rlhf_harmless_base_test.jsonl.gz", "preferences", "longer_wins", 0.42, 0.47),
        ("preferences/pandalm_testset_v1.json", "rankings", "alpha", 0.84, 0.89),
        ("preferences/prometheus_vicuna_eval_scores.jsonl.gz", "feedback", "alpha", 0.66, 0.80),
    ],
)
def test_measures_lie_in_the_known_intervals(file, kind, name, low, high):
    assert low < validate_file(str(FOLDER / file), kind=kind).statistics[name] < high
