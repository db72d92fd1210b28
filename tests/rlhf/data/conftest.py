"""Rows and files that the tests of validation share."""

import json

import pytest

from rlhf.data.validation import validate_file
from schemas.config.data import DataChecks


@pytest.fixture
def validated(tmp_path):
    """Return a function that writes rows or bytes to a file and validates it."""

    def validate(content, kind="preferences", name="rows.jsonl", checks=None, **options):
        path = tmp_path / name
        if not isinstance(content, bytes):
            content = "".join(json.dumps(row) + "\n" for row in content).encode()
        path.write_bytes(content)
        config = DataChecks.model_validate(checks or {})
        return validate_file(str(path), kind=kind, out=tmp_path / "out", config=config, **options)

    return validate


@pytest.fixture
def places():
    """Return a function from a report to {(kind, row)} of its findings."""
    return lambda report: {(finding.kind, finding.row) for finding in report.findings}
