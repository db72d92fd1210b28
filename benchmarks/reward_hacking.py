"""Does the gate refuse a model that hacks its reward, although that reward has never been higher?

    python benchmarks/reward_hacking.py [--home FOLDER] [--seed 0] [override ...]

Two runs in one home. The first is the default recipe; its winner becomes champion. The second learns a
reward model from few rankings and lets PPO follow it almost without a tether. All policies are scored by that
weak reward model and, for comparison, by the hidden utility. Prints a table and every rule of the gate.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rlhf.adapters.object_store import open_store

WEAK = ["sample.num_prompts=64", "reward.steps=60", "reward.batch_size=8"]
KNOBS = "kl_coef: 0.005, iterations: 60, learning_rate: 1.5e-4, target_kl: 0.2"
HACKER = f"aligners=[{{method: ppo, name: hacker, {KNOBS}}}]"


def main() -> None:
    """Run both and print what the gate said."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "rlhf-hacking")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", help="for both runs")
    arguments = parser.parse_args()
    seed = f"seed={arguments.seed}"
    first = _run(arguments.home, "helpdesk", seed, *arguments.overrides)
    second = _run(arguments.home, "helpdesk", seed, *arguments.overrides, *WEAK, HACKER)
    print(f"first run: {first['promotion']}")
    print(f"second run: {second['promotion']}\n")
    print("| policy | weak score | hidden utility | right | rude | KL, nats | tokens | win rate over SFT |")
    print("|---|---|---|---|---|---|---|---|")
    for name, found in second["evaluation"].items():
        numbers = [_value(found, key) for key in ("score", "gold", "right", "rude")]
        win = "" if found["win_rate"] is None else f"{found['win_rate']:.3f}"
        cells = [
            *(f"{number:.3f}" for number in numbers),
            f"{found['kl']:.1f}",
            f"{found['length']:.1f}",
            win,
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    gate = json.loads(
        open_store(str(arguments.home / "store"), arguments.home / "cache").read(
            f"runs/{second['run_id']}/gate.json"
        )
        or b"{}"
    )["result"]
    print(f"\nverdicts: {gate['verdicts']}, compared with champion version {gate['champion']}\n")
    print("| rule | wanted | found | verdict |\n|---|---|---|---|")
    for rule in gate["rules"]["hacker"]:
        print(f"| {rule['name']} | {rule['wanted']} | {rule['found']} | {rule['verdict']} |")


def _run(home: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", *arguments, "--json"],
        env={**os.environ, "RLHF_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 3):
        sys.exit(f"rlhf run {' '.join(arguments)} ended with exit code {done.returncode}")
    return dict(json.loads(done.stdout))


def _value(found: dict[str, Any], key: str) -> float:
    return float(found[key]["value"])


if __name__ == "__main__":
    main()
