import json
import logging
from pathlib import Path

import pytest
from mlflow import MlflowClient

from rlhf.adapters.tracking import TrackedRun, Tracking, connect
from schemas.errors import TrackingUnreachable
from schemas.refs import DatasetRef
from schemas.reports import MetricPoint
from schemas.settings import Settings

pytestmark = pytest.mark.integration  # a new database takes seconds


@pytest.fixture
def client(settings: Settings, tracking: Tracking) -> MlflowClient:
    return MlflowClient(settings.tracking_uri, settings.tracking_uri)


@pytest.fixture
def run(tracking: Tracking) -> TrackedRun:
    return tracking.start_run("sft", parent=None, tags={})


def artifact(settings: Settings, run: TrackedRun, name: str) -> Path:
    found = list(settings.mlflow_artifacts.glob(f"helpdesk/{run.run_id}/artifacts/{name}"))
    assert len(found) == 1, name
    return found[0]


def test_a_stage_is_a_child_of_its_run(tracking: Tracking, client: MlflowClient) -> None:
    with tracking.start_run("pipeline", parent=None, tags={"recipe": "helpdesk"}) as parent:
        child = tracking.start_run("sft", parent=parent.run_id, tags={"stage": "sft"})
        child.finish()
    found = client.get_run(child.run_id)
    assert found.data.tags["mlflow.parentRunId"] == parent.run_id
    assert (found.data.tags["stage"], found.info.run_name) == ("sft", "sft")
    assert client.get_run(parent.run_id).data.tags["recipe"] == "helpdesk"


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_run_ends_as_its_block_ended(
    tracking: Tracking, client: MlflowClient, error: type[BaseException] | None, status: str
) -> None:
    run = tracking.start_run("sft", parent=None, tags={})
    if error is None:
        with run:
            pass
    else:
        with pytest.raises(error), run:
            raise error
    assert client.get_run(run.run_id).info.status == status


def test_the_first_end_of_a_run_counts(run: TrackedRun, client: MlflowClient) -> None:
    run.finish("KILLED")
    run.finish("FINISHED")
    assert client.get_run(run.run_id).info.status == "KILLED"


def test_a_run_that_has_ended_is_added_to_and_stays_ended(
    tracking: Tracking, client: MlflowClient, run: TrackedRun, settings: Settings
) -> None:
    run.finish("FAILED")
    again = tracking.run(run.run_id)
    again.log_metrics({"evaluate/win_rate": 0.8}, 0)
    again.log_table({"prompt": ["a"]}, "responses.json")
    again.describe("**promoted**")
    found = client.get_run(run.run_id)
    assert found.data.metrics == {"evaluate/win_rate": 0.8}
    assert found.data.tags["mlflow.note.content"] == "**promoted**"
    assert found.info.status == "FAILED"
    assert artifact(settings, run, "responses.json").is_file()


def test_every_finite_metric_arrives_with_its_step(
    run: TrackedRun, client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "rlhf"):
        for step in range(1, 4):
            run.log_metrics({"sft/loss": 1 / step, "sft/broken": float("nan")}, step)
    run.log_points([MetricPoint(key="sft/lr", value=float(step), step=step) for step in range(1_200)])
    run.finish()
    history = client.get_metric_history(run.run_id, "sft/loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert len(client.get_metric_history(run.run_id, "sft/lr")) == 1_200
    assert client.get_metric_history(run.run_id, "sft/broken") == []
    assert "sft/broken is nan at step 1" in caplog.text


def test_metrics_wait_for_one_another(run: TrackedRun, client: MlflowClient) -> None:
    run.log_metrics({"a": 1.0}, 0)
    run.log_metrics({"a": 2.0}, 1)
    assert len(client.get_metric_history(run.run_id, "a")) == 1
    run.finish()
    assert len(client.get_metric_history(run.run_id, "a")) == 2


def test_a_server_that_is_down_stops_neither_training_nor_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    run = TrackedRun(MlflowClient("http://127.0.0.1:9"), "0" * 32, spool=tmp_path, patience=0)
    with caplog.at_level(logging.WARNING, "rlhf"), run:
        run.log_metrics({"sft/loss": 1.0}, 1)
    assert "values wait on disk" in caplog.text
    assert "1 values and the end of run" in caplog.text
    with pytest.raises(TrackingUnreachable, match="finished stages are re-used"):
        run.set_tags({"a": "b"})


def test_long_parameters_go_to_a_file(run: TrackedRun, client: MlflowClient, settings: Settings) -> None:
    run.log_params({**{f"p{number}": str(number) for number in range(250)}, "template": "x" * 501})
    params = client.get_run(run.run_id).data.params
    assert params["p249"] == "249"
    assert params["template"] == "see params/template.txt"
    assert artifact(settings, run, "params/template.txt").read_text() == "x" * 501


def test_files_folders_texts_and_tables_become_artifacts(
    run: TrackedRun, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/curve.svg").write_text("<svg/>")
    run.log_file(tmp_path / "folder/curve.svg")
    run.log_file(tmp_path / "folder/curve.svg", "plots")
    run.log_folder(tmp_path / "folder", "all")
    run.log_text("hello", "notes/hello.txt")
    run.log_table({"prompt": ["a", "b"], "score": [1.0, 2.0]}, "samples.json")
    for name in ("curve.svg", "plots/curve.svg", "all/curve.svg"):
        assert artifact(settings, run, name).read_text() == "<svg/>"
    assert artifact(settings, run, "notes/hello.txt").read_text() == "hello"
    table = json.loads(artifact(settings, run, "samples.json").read_text())
    assert table == {"columns": ["prompt", "score"], "data": [["a", 1.0], ["b", 2.0]]}


def test_an_input_keeps_its_whole_digest_in_a_tag(run: TrackedRun, client: MlflowClient) -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    ref = DatasetRef(uri="file:///data/x.parquet", digest=digest, kind="prompts", rows=7)
    run.log_dataset(ref, "prompts")
    found = client.get_run(run.run_id)
    assert found.data.tags["input.prompts"] == digest
    dataset = found.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("prompts", "0123456789abcdef0123456789abcdef0123")
    assert json.loads(dataset.source) == {"uri": "file:///data/x.parquet"}
    assert json.loads(dataset.profile) == {"num_rows": 7}


def test_connecting_again_finds_the_same_experiment_even_if_it_was_deleted(
    settings: Settings, client: MlflowClient
) -> None:
    first = connect(settings, "another").start_run("a", parent=None, tags={})
    experiment = client.get_run(first.run_id).info.experiment_id
    client.delete_experiment(experiment)
    second = connect(settings, "another").start_run("b", parent=None, tags={})
    assert client.get_run(second.run_id).info.experiment_id == experiment
