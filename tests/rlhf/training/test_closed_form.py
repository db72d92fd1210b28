"""PPO finds the optimum where it is known (`benchmarks/closed_form.py` says which task that is)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[3] / "benchmarks" / "closed_form.py"


@pytest.mark.integration
def test_ppo_reaches_the_optimum_of_a_task_that_has_a_closed_form():
    done = subprocess.run(
        [sys.executable, str(STUDY), "--seeds", "0", "1", "2", "3", "4"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=600,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 5
    assert [row for row in rows if row["share"] < 0.95] == []
    # More than the optimum would mean that the objective is computed wrongly.
    assert [row for row in rows if row["reached"] > row["optimum"]] == []
