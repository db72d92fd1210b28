"""Options of the suite for pytest, registered by an entry point because `--pyargs` finds a package's conftest too late."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--backend` and `--conformance-results`."""
    group = parser.getgroup("rlhf.conformance", "the conformance suite of rlhf")
    group.addoption(
        "--backend", default="ours", help="what to test: ours, trl, or a Python file that defines `backend`"
    )
    group.addoption("--conformance-results", metavar="FILE", help="write the outcomes as JSON")
