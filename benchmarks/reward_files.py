"""Reward models of the recipe hh on one's own preference files, with and without the length correction.

    python benchmarks/reward_files.py --folder FOLDER [--correction 1.0] [--override KEY=VALUE] FILE...

FILE is relative to FOLDER/preferences. Per file and correction one run of the pipeline as far as `probe`;
the raw text, and with it the base, is the same for all. Prints a line of a table each: pairs of other prompts
than were trained on, 95 % intervals over prompts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

COLUMNS = (
    "file", "correction", "accuracy", "longer one wins", "about equal length", "correlation with length",
    "the same at equal preference", "temperature",
)  # fmt: skip


def main() -> None:
    """Train on each file and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "rlhf-reward-files")
    parser.add_argument("--correction", type=float, default=1.0, help="reward.length_decorrelation")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--override", action="append", default=[])
    arguments = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for file in arguments.files:
        for correction in (0.0, arguments.correction):
            overrides = [
                f"data.folder={arguments.folder}",
                f"data.preferences=[preferences/{file}]",
                f"reward.length_decorrelation={correction}",
                *arguments.override,
            ]
            print(f"| {' | '.join((file, str(correction), *_row(arguments.home, overrides)))} |", flush=True)


def _row(home: Path, overrides: list[str]) -> tuple[str, ...]:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "stage", "probe", "hh", *overrides, "--json"],
        env={**os.environ, "RLHF_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 3):
        sys.exit(f"rlhf stage probe hh {' '.join(overrides)} ended with exit code {done.returncode}")
    stages = {stage["name"]: stage["metrics"] for stage in json.loads(done.stdout)["stages"]}
    found = stages["probe"]
    return (
        f"{found['accuracy']:.3f} ({found['accuracy_low']:.3f} to {found['accuracy_high']:.3f})",
        f"{found['longer_baseline']:.3f}",
        f"{found['accuracy_length_matched']:.3f}" if "accuracy_length_matched" in found else "",
        f"{found['length_correlation']:.2f}",
        f"{found['partial_length_correlation']:.2f}",
        f"{found['temperature']:.1f}",
    )


if __name__ == "__main__":
    main()
