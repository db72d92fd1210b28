"""Run the suite against several backends and write the table: `python -m rlhf.conformance --into docs/conformance.md`."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from rlhf.conformance.table import rows, written_into


def run(backend: str) -> dict[str, Any]:
    """Run the suite against a backend and return the outcomes."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        pytest.main(
            [
                "--pyargs",
                "rlhf.conformance",
                "-p",
                "rlhf.conformance.plugin",
                "-p",
                "no:cacheprovider",
                "-q",
                "--tb=line",
                f"--backend={backend}",
                f"--conformance-results={results}",
            ]
        )
        found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
        return found


def main() -> None:
    """Run, and print the table or write it into a document between the marks that it has for it."""
    parser = argparse.ArgumentParser(prog="python -m rlhf.conformance", description=__doc__)
    parser.add_argument("backends", nargs="*", default=["ours", "trl"], help="ours, trl, or a Python file")
    parser.add_argument("--into", type=Path, help="document whose table is rewritten")
    options = parser.parse_args()
    results = [run(backend) for backend in options.backends]
    if options.into:
        document = options.into.read_text(encoding="utf-8")
        options.into.write_text(written_into(document, results), encoding="utf-8")
    else:
        print("\n".join(rows(results)))


if __name__ == "__main__":
    main()
