"""What Prefect and MLflow cost: the same stages with and without them, in pairs: one JSON line each, medians.

    python benchmarks/orchestration.py --recipe helpdesk --pairs 2

Without them means: the flow's own function, each stage's own body, no server, no task engine, no tracked run,
no registry. The report is left out on both sides: it is work of its own. Each run is a process and a home
folder of its own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="helpdesk")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--bare", action="store_true", help="run the stages without Prefect and MLflow, once")
    arguments = parser.parse_args()
    if arguments.bare:
        run_bare(arguments.recipe)
        return
    overheads = []
    for pair in range(arguments.pairs):
        full = _measure([sys.executable, "-m", "flows.cli", "run", arguments.recipe, "--fresh", "--json"])
        print(json.dumps({"pair": pair, "with": full}), flush=True)
        bare = _measure([sys.executable, __file__, "--recipe", arguments.recipe, "--bare"])
        report = next(stage["seconds"] for stage in full["stages"] if stage["name"] == "report")
        found = {
            name: round(1 - bare[name] / (full[name] - report), 4) for name in ("wall_seconds", "cpu_seconds")
        }
        overheads.append(found)
        shown = {
            "pair": pair,
            "with": {name: full[name] for name in found},
            "report_seconds": report,
            "without": {name: bare[name] for name in found},
            "overhead": found,
        }
        print(json.dumps(shown), flush=True)
    print(json.dumps({"median": {name: median(pair[name] for pair in overheads) for name in overheads[0]}}))


def run_bare(recipe: str) -> None:
    """Run the flow's function with stages that only do their work."""
    from flows import pipeline
    from schemas.config import RunConfig
    from schemas.config.loading import load_config
    from schemas.pipeline import PipelineRun
    from tasks.stage import Stage
    from tasks.work import StageWork

    class Untracked:
        """Takes what a tracked run takes, and forgets it."""

        run_id = ""

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

    def call(self: Stage, run: PipelineRun, *args: Any, **kwargs: Any) -> Any:
        if self.name in {"register", "report"}:
            return None
        work = StageWork(run=run, stage=self.name, key=f"bare-{self.name}", started=time.monotonic())
        work._tracked = Untracked()
        return self.body(work, *args, **kwargs)

    @contextmanager
    def untracked_run(config: RunConfig, **_: Any) -> Iterator[PipelineRun]:
        yield PipelineRun(run_id="bare", name=config.name, seed=config.seed, compute=config.compute)

    Stage.__call__ = call
    pipeline.pipeline_run = untracked_run
    pipeline.summarise = lambda run_id: None
    pipeline.wait_for_approval = lambda *_: False  # nothing was registered
    pipeline.rlhf.fn(load_config(recipe))
    print(json.dumps({"stages": []}))


def _measure(command: list[str]) -> dict[str, Any]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            command, env={**os.environ, "RLHF_HOME": home}, stdout=subprocess.PIPE, text=True, check=False
        )
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3):
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_seconds": round(seconds, 2),
        "cpu_seconds": round(used, 2),
        "stages": json.loads(done.stdout)["stages"],
    }


if __name__ == "__main__":
    main()
