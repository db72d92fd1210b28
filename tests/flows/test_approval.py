"""A deployed run is suspended until a person has decided: by `rlhf approve`, or by the form on Prefect's page."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.flows.conftest import Place

pytestmark = pytest.mark.e2e

OVERRIDES = (
    "gate.approval=manual", "gate.min_prompts=8", "gate.min_win_rate_low=0", "gate.max_right_drop=1",
    "gate.max_rude=1", "gate.max_length_ratio=60", "gate.max_kl=10000", "gate.max_perplexity_ratio=1000",
    "gate.max_harm_rise=1", "gate.max_over_refusal_rise=1",
)  # fmt: skip


def test_a_suspended_run_goes_on_once_somebody_has_decided(place: "Place", tmp_path: Path) -> None:
    env = place.machine(tmp_path / "home")

    def models() -> dict[int, dict[str, Any]]:
        listed = place.command(env, "flows.cli", "models", "--name", "micro", "--json")
        return {model["version"]: model for model in json.loads(listed)}

    def waiting() -> dict[str, Any]:
        (one,) = [model for model in models().values() if model["tags"].get("approval") == "waiting"]
        return one

    with place.worker("approval", env):
        # By the command, which promotes at once and wakes the run.
        run = place.start_run(OVERRIDES)
        place.reaches(run, "Suspended", log="approval")
        one = waiting()
        assert one["aliases"] == ["candidate"]
        place.command(
            env, "flows.cli", "approve", str(one["version"]), "--name", "micro", "--reason", "looks right"
        )
        place.reaches(run, "Completed", log="approval")
        found = models()[one["version"]]
        assert found["aliases"] == ["champion"]
        assert found["tags"]["promoted_because"] == "looks right"

        # By Prefect's page, which sends what its form holds.
        run = place.start_run([*OVERRIDES, "ppo.kl_coef=0.7", "dpo.beta=0.7"])
        place.reaches(run, "Suspended", log="approval")
        two = waiting()
        place.resume(run, {"decision": "approve", "reviewer": "ann", "reason": "better still"})
        place.reaches(run, "Completed", log="approval")
        found = models()[two["version"]]
        assert found["aliases"] == ["champion"]
        assert (found["tags"]["promoted_by"], found["tags"]["approval"]) == ("ann", "approved")
        assert found["tags"]["promoted_over"] == str(one["version"])
