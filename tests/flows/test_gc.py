"""`rlhf gc` removes what nothing needs, and nothing that a registered version came from."""

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from schemas.refs import ModelRef
from tasks.gc import collect
from tasks.lineage import made_by
from tasks.work import artifact_store, connect_tracking, model_registry

pytestmark = pytest.mark.e2e

ALL_IS_OLD = -1.0
"""Days: what will be written by tomorrow."""


def test_what_no_version_came_from_goes_and_the_rest_stays(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = start(tmp_path).finish()
    outputs = {stage["name"]: stage["outputs"] for stage in summary["stages"]}
    for name in ("RLHF_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RLHF_HOME", str(tmp_path))
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    client.delete_model_version("micro", str(summary["promotion"]["versions"]["dpo"]))
    tracking, store = connect_tracking("micro"), artifact_store()
    # A young run needs all that it has.
    assert collect(tracking, days=30, delete=False).artifacts == {}
    client.set_tag(summary["run_id"], "keep", "for the paper")
    assert collect(tracking, days=ALL_IS_OLD, delete=False).artifacts == {}
    client.delete_tag(summary["run_id"], "keep")

    told = collect(tracking, days=ALL_IS_OLD, delete=False)
    models = {name: ModelRef(**outputs[name]["model"], role="policy") for name in ("ppo", "dpo", "sft")}
    assert models["dpo"].uri in told.artifacts
    assert told.size > 0
    assert all(store.exists(model) for model in models.values())
    assert collect(tracking, days=ALL_IS_OLD, delete=True).artifacts == told.artifacts
    assert not store.exists(models["dpo"])
    (version,) = model_registry("micro").versions()
    model_registry("micro").verify(version)
    stages = made_by(version)
    assert {"validate", "pretrain", "sft", "sample", "preferences", "reward", "ppo"} == {
        stage.name for stage in stages
    }
    assert all(store.exists(ref) for stage in stages for ref in stage.outputs.values())
    # Nothing is left to remove, and a run computes what was removed again, and only that.
    assert collect(tracking, days=ALL_IS_OLD, delete=False).artifacts == {}
    again = start(tmp_path)
    assert start.digests(again.finish()) == start.digests(summary)
    assert {"validate", "sft", "reward", "ppo"} <= set(again.stages("reused"))
    assert "dpo" in again.stages("finished")


def test_an_unfinished_stage_keeps_its_checkpoint(
    start: Any, quiet_home: Path, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_folder = tmp_path / "store"
    run = start(quiet_home, "ppo.iterations=400", RLHF_STORE=str(store_folder))
    run.until("ppo", "step", 3)
    monkeypatch.setenv("RLHF_HOME", str(quiet_home))
    monkeypatch.setenv("RLHF_STORE", str(store_folder))
    try:
        tracking, store = connect_tracking("micro"), artifact_store()
        told = collect(tracking, days=ALL_IS_OLD, delete=False)
        (checkpoint,) = store.list_keys("checkpoints")
        assert checkpoint not in told.records
        assert [key for key in told.records if key.startswith("processes/")] == []
    finally:
        run.process.kill()
        run.process.join(30)
    told = collect(tracking, days=ALL_IS_OLD, delete=False)
    assert checkpoint in told.records  # nobody holds its lease, and it is old
