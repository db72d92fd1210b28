"""The page's section on data: drawn from a report, and never trusting what stands in it."""

import xml.etree.ElementTree as ElementTree

import pytest

from rlhf.report import quality
from schemas.validation import TokenCheck, ValidationReport


@pytest.fixture
def report():
    return ValidationReport(
        kind="preferences", source="pairs.jsonl", format="TRL standard, JSON Lines", verdict="warn", rows=200, kept=190,
        quarantined=4, dropped=6, reasons={"exact_duplicate": 6}, counts={"exact_duplicate": 6, "<script>": 3},
        statistics={
            "longer_wins": 0.8, "longer_wins_low": 0.74, "longer_wins_high": 0.85, "bag_of_words": 0.7,
            "bag_of_words_error": 0.05, "alpha": 0.4, "alpha_low": 0.2, "alpha_high": 0.6, "items_rated_twice": 90,
        },
        figures={
            "length_edges_chosen": (1.0, 10.0, 100.0), "length_counts_chosen": (50.0, 150.0),
            "length_edges_rejected": (1.0, 10.0, 100.0), "length_counts_rejected": (100.0, 100.0),
        },
    )  # fmt: skip


def test_everything_that_was_measured_is_drawn(report):
    pictures = quality.charts(report)
    assert len(pictures) == 3
    for picture in pictures:
        ElementTree.fromstring(str(picture))  # noqa: S314 - our own output
    text = " ".join(pictures)
    assert "80.0% (74.0–85.0)" in text  # noqa: RUF001 - as the page writes ranges
    assert "70.0% (60.2–79.8)" in text  # noqa: RUF001 - 1.96 standard errors of 0.05
    assert "6 (3.0%)" in text
    assert "<script>" not in text


def test_the_curve_of_lengths_is_a_share_over_a_power_of_ten(report):
    # Half way between 1 and 10 on the scale of powers; 50 of 200 rows.
    assert quality._shares(report, "chosen") == [(0.5, 0.25), (1.5, 0.75)]


def test_a_table_without_responses_has_no_chart(report):
    empty = report.model_copy(update={"statistics": {}, "figures": {}, "counts": {}})
    assert quality.charts(empty) == []
    assert quality.agreement(empty) == ""


def test_agreement_is_said_in_words(report):
    assert "alpha 0.40 (0.20 to 0.60) on 90 items" in quality.agreement(report)


def test_what_is_wrong_with_tokens_is_said_and_what_is_not_is_left_out():
    good = TokenCheck(rows=10, looked_at=10, cut=1)
    assert list(quality.token_sentences(good)) == [
        "10.0% of 10 sequences are cut at the maximal length.", "Nothing is wrong with their tokens.",
    ]  # fmt: skip
    bad = good.model_copy(update={"double_bos": 10})
    assert list(quality.token_sentences(bad))[1:] == ["10 start with BOS twice."]
