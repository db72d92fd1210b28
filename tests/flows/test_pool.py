"""One stage by the worker of a pool, with a home of its own: the same bits as where it was ordered."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_a_stage_is_computed_by_a_worker_with_a_home_of_its_own(
    place: Any, start: Any, quiet_home: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    shared = {
        "RLHF_STORE": str(quiet_home / "store"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'here' / 'mlflow.db'}",
    }
    with place.worker("pool-worker", place.machine(tmp_path / "there", **shared)):
        run = start(tmp_path / "here", "ppo.kl_coef=0.65", "compute.stages.ppo.place=pool", **shared)
        summary = run.finish()
        # What it could not do is the error of the stage here.
        failed = start(
            tmp_path / "here",
            "sft.learning_rate=1e30",
            "compute.stages.sft.place=pool",
            **shared,
        ).fail()
    assert failed.startswith("TrainingDiverged")
    assert not list((tmp_path / "here").glob("work/*/model"))
    for manifest in quiet_home.glob("store/stages/ppo/*.json"):  # it would be re-used
        manifest.unlink()
    alone = start(quiet_home, "ppo.kl_coef=0.65").finish()
    assert start.digests(summary) == start.digests(alone)
    assert start.metrics(summary) == start.metrics(alone)
    (ppo,) = [found for found in start.tracked(tmp_path / "here", "FINISHED") if found.info.run_name == "ppo"]
    assert ppo.data.metrics["ppo/kl"] == next(
        stage["metrics"]["kl"] for stage in summary["stages"] if stage["name"] == "ppo"
    )
    assert not list(quiet_home.glob("store/orders/ppo/*"))
