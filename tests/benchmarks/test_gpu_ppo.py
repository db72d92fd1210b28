"""The GPU benchmark runs without a GPU, and with nothing installed but what it says that it needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BARE = """
import importlib.metadata, re, runpy, sys

def closure(name, seen):
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name not in seen:
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            return
        seen.add(name)
        for need in needs:
            if "extra ==" not in need:
                closure(re.match(r"[A-Za-z0-9._-]+", need).group(), seen)

seen = set()
for name in ("torch", "transformers", "peft", "accelerate"):
    closure(name, seen)
installed = importlib.metadata.packages_distributions()
others = {
    package for package, owners in installed.items()
    if not any(re.sub(r"[-_.]+", "-", owner).lower() in seen for owner in owners)
} - {"rlhf", "schemas", "tasks", "flows", "recipes"}
assert {"trl", "mlflow", "prefect", "polars", "datasets", "boto3"} <= others

class Bare:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in others else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Bare(finder) for finder in sys.meta_path]
sys.argv = ["gpu_ppo.py", "--device", "cpu", "--size", "toy", "--batch", "4", "--minibatch", "2",
            "--prompt", "5", "--response", "6", "--iterations", "1"]
runpy.run_path("benchmarks/gpu_ppo.py", run_name="__main__")
"""


@pytest.mark.integration
def test_a_machine_with_torch_transformers_peft_and_accelerate_alone_can_run_it():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", BARE], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["size"] == "toy"
    assert 0 < line["rollout_mfu"] < 1
    assert 0 < line["update_mfu"] < 1
    assert line["parameters"] > 128 * 32
