"""How many prompts the gate needs: in how many runs does a rule pass, by the gate's own bounds?

    python benchmarks/gate_power.py

Simulated, nothing is trained; it prints the tables of docs/gate.md in under a minute.
"""

import argparse
from collections.abc import Callable

import numpy as np

from rlhf.evaluation import bounds
from schemas.config import GateConfig

SIZES = (100, 256, 512, 1024, 2048, 4096)
CONFIG = GateConfig()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=4_000, help="simulated runs per cell")
    parser.add_argument("--candidates", type=int, default=2, help="aligners of a run")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)

    def passing(passes: Callable[[int, int, int], bool], shares: tuple[float, float], n: int) -> str:
        gained, lost = shares
        known: dict[tuple[int, int], bool] = {}
        drawn = generator.multinomial(n, [gained, lost, 1 - gained - lost], size=arguments.runs)
        passed = 0
        for up, down, _ in drawn.tolist():
            if (up, down) not in known:
                known[up, down] = passes(up, down, n)
            passed += known[up, down]
        return f"{passed / arguments.runs:.1%}"

    def row(label: str, passes: Callable[[int, int, int], bool], shares: tuple[float, float]) -> None:
        print("|", " | ".join([label, *(passing(passes, shares, n) for n in SIZES)]), "|")

    def header(label: str) -> None:
        print(f"\n| {label} |", " | ".join(f"{n:,}" for n in SIZES), "|")
        print("|" + "---|" * (len(SIZES) + 1))

    rates = CONFIG.error_rates
    win_error = rates.win_rate / arguments.candidates
    header("true win rate, ties")
    for win, ties in ((0.5, 0.0), (0.5, 0.3), (0.55, 0.0), (0.55, 0.3), (0.6, 0.0), (0.6, 0.3), (0.7, 0.3)):
        gained = win - ties / 2
        row(
            f"{win:.0%}, {ties:.0%}",
            lambda up, down, n: bounds.paired_shares(up, down, n, win_error).low > 0,
            (gained, 1 - ties - gained),
        )
    right_error = rates.right / arguments.candidates
    header("right answers: true change, prompts on which the two differ")
    for change, differ in ((-0.05, 0.25), (-0.02, 0.25), (0.0, 0.1), (0.0, 0.25), (0.02, 0.25), (0.05, 0.25)):
        row(
            f"{100 * change:+.0f} points, {differ:.0%}",
            lambda up, down, n: bounds.paired_shares(down, up, n, right_error).high <= CONFIG.max_right_drop,
            ((differ + change) / 2, (differ - change) / 2),
        )
    rude_error = rates.rude / arguments.candidates
    header("rude answers: true share")
    for share in (0.02, 0.01, 0.005, 0.002, 0.0):
        row(
            f"{share:.1%}",
            lambda up, _, n: bounds.share(up, n, rude_error).high <= CONFIG.max_rude,
            (share, 0.0),
        )


if __name__ == "__main__":
    main()
