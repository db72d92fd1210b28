"""Run a recipe once per seed and print one JSON line each: time, memory, what the aligners reached.

    python benchmarks/helpdesk.py --seeds 0 1 2 3 [--home FOLDER] [override ...]

Each run is the command that a user types, in a process and a home folder of its own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--recipe", default="helpdesk")
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "rlhf-benchmark")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        home = arguments.home / f"seed{seed}"
        command = [
            sys.executable,
            "-m",
            "flows.cli",
            "run",
            arguments.recipe,
            f"seed={seed}",
            "--fresh",
            "--json",
        ]
        started = time.monotonic()
        done = subprocess.run(
            [*command, *arguments.overrides],
            env={**os.environ, "RLHF_HOME": str(home)},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
        if done.returncode not in (0, 3):
            sys.exit(f"seed {seed} ended with exit code {done.returncode}")
        summary = json.loads(done.stdout)
        print(
            json.dumps(
                {
                    "seed": seed,
                    "seconds": round(seconds, 1),
                    "peak_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2),
                    "stages": {stage["name"]: round(stage["seconds"], 1) for stage in summary["stages"]},
                    "evaluation": summary["evaluation"],
                    "verdict": summary["promotion"]["verdict"],
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
