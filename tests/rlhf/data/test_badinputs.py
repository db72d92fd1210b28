"""Every deliberately bad file gets an allowed verdict, names the right kinds, and points at the right rows."""

import json
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest

from rlhf.data.validation import validate_file
from schemas.config.data import DataChecks, ReadingLimits

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "badinputs"
INDEX = (
    json.loads((FOLDER / "index.json").read_text()) if (FOLDER / "index.json").is_file() else {"cases": []}
)
KINDS = {
    "ab": "preferences", "kto": "feedback", "sft": "demonstrations", "prompt": "prompts", "kway": "rankings",
    "rank": "rankings", "multirater": "rankings", "text": "corpus", "corpus": "corpus", "pref": "preferences",
    "score": "feedback", "pointwise": "feedback", "tree": "rankings", "feedback": "feedback",
}  # fmt: skip

pytestmark = pytest.mark.skipif(not INDEX["cases"], reason=f"no bad inputs at {FOLDER}")


def table_of(case):
    return next(
        (table for prefix, table in KINDS.items() if case["schema"].startswith(prefix)), "preferences"
    )


def settings(assumed):
    limits = ReadingLimits(
        row_bytes=assumed["max_row_bytes"],
        nesting=assumed["max_nesting"],
        decompressed_bytes=assumed["max_decompressed_bytes"],
        compression_ratio=assumed["max_compression_ratio"],
    )
    return DataChecks(limits=limits, languages=(assumed["language"],))


def training_half(case):
    """Return the file of the same folder that this one must share no prompt with."""
    folder = Path(case["file"]).parent
    return [
        str(FOLDER / other["file"])
        for other in INDEX["cases"]
        if "leakage" in case["kinds"] and case["where"] and not other["where"]
        and "leakage" in other["kinds"] and Path(other["file"]).parent == folder
    ]  # fmt: skip


@pytest.mark.parametrize("case", INDEX["cases"], ids=lambda case: Path(case["file"]).name)
def test_a_bad_file_is_judged_as_the_index_says(case, tmp_path):
    report = validate_file(
        str(FOLDER / case["file"]),
        kind=table_of(case),
        out=tmp_path,
        config=settings(INDEX["assumptions"]),
        against=training_half(case),
    )
    assert report.verdict in {case["verdict"], *case["also_acceptable"]}, report.findings
    kinds = {finding.kind for finding in report.findings}
    if case["verdict"] != "accept" and case["kinds"] and report.verdict != "accept":
        assert kinds & set(case["kinds"])
    found = defaultdict(set)
    for finding in report.findings:
        for place in (("line", finding.line), ("row", finding.row), ("field", finding.field), ("", None)):
            found[place].add(finding.kind)
    for where in case["where"]:
        wanted = {where["kind"], *where.get("or", [])}
        place = next(
            ((name, where[name]) for name in ("line", "row", "field") if where.get(name) is not None),
            ("", None),
        )
        assert wanted & found[place], (where, report.findings)
    if report.verdict != "reject_file":
        assert report.kept >= (case["rows_ok"] or 0)
        assert report.rows == report.kept + report.quarantined + report.dropped
        if case["rows_total"] is not None:
            assert report.rows == case["rows_total"]
    if case["verdict"] == "accept":
        assert (report.kept, report.quarantined) == (case["rows_ok"], 0)


def test_nothing_was_unpickled():
    assert not (Path(tempfile.gettempdir()) / "rlhf_unpickle_canary").exists()
