"""The whole pipeline as its users run it: the command line, Prefect's own server, SQLite, a real store."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl
import pytest
from mlflow import MlflowClient
from safetensors import safe_open

from rlhf.data.near import clusters
from rlhf.data.questions import first_questions

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
ALWAYS_RUN = {"register", "report"}
"""Their results lie outside the store."""


def _environment(home: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return {**ours, "RLHF_HOME": str(home)}


def _rlhf(home: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        env={**_environment(home), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def _run(home: Path, *overrides: str) -> dict[str, Any]:
    done = _rlhf(home, "run", "micro", *overrides, "--json")
    # The gate refuses what has learnt nothing: done, with exit code 3.
    assert done.returncode == 3, done.stderr
    return json.loads(done.stdout)


def _statuses(summary: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in summary["stages"]}


def _digests(summary: dict[str, Any]) -> dict[str, str]:
    return {
        f"{stage['name']}.{name}": ref["digest"]
        for stage in summary["stages"]
        if stage["name"] not in ALWAYS_RUN
        for name, ref in stage["outputs"].items()
    }


def _folder(summary: dict[str, Any], stage: str) -> Path:
    outputs = next(entry["outputs"] for entry in summary["stages"] if entry["name"] == stage)
    return Path(unquote(urlsplit(outputs["model"]["uri"]).path))


def _table(record: dict[str, Any], output: str) -> pl.DataFrame:
    return pl.read_parquet(unquote(urlsplit(record["outputs"][output]["uri"]).path))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first(home: Path) -> dict[str, Any]:
    return _run(home)


def test_a_run_tells_its_story_as_one_json_object(first):
    assert set(_statuses(first).values()) == {"ran"}
    assert list(first["evaluation"]) == ["sft", "ppo", "dpo"]
    for aligner in ("ppo", "dpo"):
        found = first["evaluation"][aligner]
        assert found["win_rate_low"] <= found["win_rate"] <= found["win_rate_high"]
    assert first["promotion"]["verdict"] == "refused"
    assert first["promotion"]["versions"] == {"ppo": 1, "dpo": 2}
    assert Path(unquote(urlsplit(first["report"]).path)).read_text(encoding="utf-8").startswith("<!doctype")


def test_prefects_pages_know_every_stage_of_a_run_that_had_a_server_of_its_own(home, first):
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
        run = database.execute("select id from flow_run order by created limit 1").fetchone()
        found = dict(database.execute("select name, state_type from task_run where flow_run_id = ?", run))
        said = [text for (text,) in database.execute("select message from log where flow_run_id = ?", run)]
    assert found == dict.fromkeys(_statuses(first), "COMPLETED")
    assert sum("Finished in state" in text for text in said) == len(found) + 1  # the stages and the run


def test_the_same_command_again_reuses_every_stage_and_shows_it_in_the_new_run(home, first):
    again = _run(home)
    assert {name for name, status in _statuses(again).items() if status != "reused"} == ALWAYS_RUN
    assert _digests(again) == _digests(first)
    assert again["promotion"]["versions"] == first["promotion"]["versions"]
    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    reward = {
        name: client.get_run(next(s["run_id"] for s in summary["stages"] if s["name"] == "reward"))
        for name, summary in (("first", first), ("again", again))
    }
    assert reward["again"].data.tags["reused_from"] == reward["first"].info.run_id
    assert reward["again"].data.tags["mlflow.parentRunId"] == again["run_id"]
    assert reward["again"].data.metrics == reward["first"].data.metrics
    assert reward["again"].data.params == reward["first"].data.params
    for tag in ("stage", "seed", "code_revision", "python"):
        assert reward["again"].data.tags[tag] == reward["first"].data.tags[tag]
    parents = {name: client.get_run(run.data.tags["mlflow.parentRunId"]) for name, run in reward.items()}
    for name, run in reward.items():
        assert run.data.tags["prefect.flow_run_id"] == parents[name].data.tags["prefect.flow_run_id"]
    steps = [len(client.get_metric_history(run.info.run_id, "reward/loss")) for run in reward.values()]
    assert steps == [10, 10]


def test_one_knob_runs_again_only_what_depends_on_it(home, first):
    changed = _run(home, "ppo.kl_coef=0.7")
    ran = {name for name, status in _statuses(changed).items() if status == "ran"}
    assert ran - ALWAYS_RUN == {"ppo", "evaluate-ppo", "gate"}
    # What was computed again is another model, so it is another version; the other aligner's is known.
    assert changed["promotion"]["versions"] == {"ppo": 3, "dpo": 2}


def test_rounds_sample_the_latest_policies_and_keep_what_was_ranked_before(home, first):
    twice = _run(home, "labelling.rounds=2")
    status = _statuses(twice)
    late = {name for name, found in status.items() if found == "ran"} - ALWAYS_RUN
    # The first round is the very same work as a run of one round; only the gate sees more policies.
    assert {name for name in late if not name.endswith("-2")} == {"gate"}
    assert {f"{name}-2" for name in status if f"{name}-2" in status} == late - {"gate"}
    assert {"sample-2", "preferences-2", "reward-2", "ppo-2", "dpo-2", "evaluate-dpo-2"} <= late
    assert list(twice["evaluation"]) == ["sft", "ppo", "dpo", "sft-2", "ppo-2", "dpo-2"]
    assert len(set(twice["promotion"]["versions"].values())) == 4
    records = {stage["name"]: stage for stage in twice["stages"]}
    assert records["sample-2"]["inputs"]["policies.ppo"] == records["ppo"]["outputs"]["model"]
    assert records["sample-2"]["inputs"]["policies.dpo"] == records["dpo"]["outputs"]["model"]
    assert records["ppo-2"]["inputs"]["sft"] == records["sft"]["outputs"]["model"]
    asked = [_table(records[name], "candidates") for name in ("sample", "sample-2")]
    assert not set(asked[0]["prompt_id"]) & set(asked[1]["prompt_id"])
    for kind in ("rankings", "preferences"):
        before, after = (_table(records[name], kind) for name in ("preferences", "preferences-2"))
        assert after.head(before.height).equals(before)
        new = after.slice(before.height)
        assert new.height
        assert set(new["prompt_id"]) <= set(asked[1]["prompt_id"])
    again = _run(home, "labelling.rounds=2")
    assert {name for name, found in _statuses(again).items() if found != "reused"} == ALWAYS_RUN
    assert again["promotion"]["versions"] == twice["promotion"]["versions"]
    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    for summary in (twice, again):
        children = client.search_runs(
            [client.get_run(summary["run_id"]).info.experiment_id],
            f"tags.`mlflow.parentRunId` = '{summary['run_id']}' and tags.stage = 'reward'",
        )
        assert {run.info.run_name: run.data.tags["round"] for run in children} == {
            "reward": "1",
            "reward-2": "2",
        }
        curve = client.get_metric_history(summary["run_id"], "ppo/win_rate")
        expected = [
            (turn, summary["evaluation"][name]["win_rate"]) for turn, name in ((1, "ppo"), (2, "ppo-2"))
        ]
        assert [(point.step, point.value) for point in curve] == expected
    versions = {int(v.version): v.tags for v in client.search_model_versions("name = 'micro'")}
    made = versions[twice["promotion"]["versions"]["dpo-2"]]
    assert made["round"] == "2"
    assert made["data.preferences"] == records["preferences-2"]["outputs"]["preferences"]["digest"]
    assert made["reward.model"] == records["reward-2"]["outputs"]["model"]["digest"]


def test_a_later_round_asks_where_the_reward_ensemble_disagrees(home, first):
    chosen = (
        "labelling.rounds=2",
        "labelling.select=disagreement",
        "labelling.pool=2",
        "reward.ensemble.size=3",
    )
    done = _rlhf(home, "stage", "select-2", "micro", *chosen, "--json")
    assert done.returncode == 0, done.stderr
    records = {stage["name"]: stage for stage in json.loads(done.stdout)["stages"]}
    assert {records[name]["status"] for name in ("sft", "sample", "preferences")} == {"reused"}
    assert records["select-2"]["inputs"]["reward"] == records["reward"]["outputs"]["model"]
    pool, asked = (_table(records[name], "candidates") for name in ("sample-2", "select-2"))
    assert (pool.height, asked.height) == (64, 32)
    assert asked.equals(pool.filter(pl.col("prompt_id").is_in(asked["prompt_id"].implode())))
    metrics = records["select-2"]["metrics"]
    assert metrics["doubt_of_chosen"] > metrics["doubt_of_pool"] > 0
    refused = _rlhf(home, "run", "micro", "labelling.select=disagreement")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "reward.ensemble" in refused.stderr


def test_a_lost_artifact_is_computed_again_to_the_same_bits(home, first):
    model = _folder(first, "sft")
    model.rename(model.with_name("elsewhere"))
    again = _run(home)
    assert {name for name, status in _statuses(again).items() if status == "ran"} == {"sft", *ALWAYS_RUN}
    assert _digests(again) == _digests(first)


def test_a_corrupt_artifact_is_one_clear_error_and_costs_nothing_that_is_finished(home, first):
    weights = _folder(first, "sft") / "model.safetensors"
    whole = weights.read_bytes()
    weights.chmod(0o644)
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    failed = _rlhf(home, "run", "micro", "dpo.beta=0.7")
    weights.write_bytes(whole)
    assert failed.returncode == 1
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert str(weights) in errors[0]
    assert "Traceback" not in failed.stderr
    mended = _statuses(_run(home, "dpo.beta=0.7"))
    assert {name for name, status in mended.items() if status == "ran"} - ALWAYS_RUN == {
        "dpo",
        "evaluate-dpo",
        "gate",
    }


def test_another_machine_with_the_same_seed_computes_the_same_bits(first, tmp_path):
    assert _digests(_run(tmp_path)) == _digests(first)


def test_the_evaluations_reward_model_learns_from_prompts_that_nothing_else_learns_from(home, first):
    judged = _run(home, "evaluate.judge=evaluation_reward", "preferences.judging_fraction=0.5")
    stages = {stage["name"]: stage for stage in judged["stages"]}
    given, kept = (stages["preferences"]["outputs"][name] for name in ("preferences", "judging"))
    assert stages["judge"]["inputs"]["preferences"] == kept
    for name in ("reward", "dpo"):
        assert stages[name]["inputs"]["preferences"] == given
    seen = {ref["digest"] for name in ("reward", "ppo", "dpo") for ref in stages[name]["inputs"].values()}
    assert kept["digest"] not in seen
    assert stages["judge"]["outputs"]["model"]["digest"] != stages["reward"]["outputs"]["model"]["digest"]
    for name in ("evaluate-sft", "evaluate-ppo", "evaluate-dpo"):
        assert stages[name]["inputs"]["judge"] == stages["judge"]["outputs"]["model"]
    tables = [pl.read_parquet(unquote(urlsplit(ref["uri"]).path)) for ref in (given, kept)]
    together = pl.concat(tables)
    of_side = [0] * tables[0].height + [1] * tables[1].height
    sides: dict[int, set[int]] = {}
    for cluster, side in zip(clusters(first_questions(together)).tolist(), of_side, strict=True):
        sides.setdefault(cluster, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    assert {0, 1} == {side for found in sides.values() for side in found}


def test_any_two_models_are_compared_on_the_recipes_prompts(home, first):
    run = first["run_id"]
    done = _rlhf(
        home,
        "evaluate",
        f"{run}/dpo",
        "--against",
        f"{run}/sft",
        "micro",
        "--reward",
        f"{run}/reward",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    found, known = json.loads(done.stdout), first["evaluation"]["dpo"]
    # The same policies, prompts and seed as in the run.
    for measure in ("win_rate", "win_rate_low", "kl", "gold", "score", "forgetting", "safety", "wording"):
        assert found[measure] == known[measure]
    turned = json.loads(
        _rlhf(home, "evaluate", f"{run}/sft", "--against", f"{run}/dpo", "micro", "--json").stdout
    )
    assert turned["score"] is None
    assert turned["forgetting"]["alignment_tax"]["value"] == pytest.approx(
        -known["forgetting"]["alignment_tax"]["value"], abs=1e-9
    )
    missing = _rlhf(home, "evaluate", f"{run}/dpo", "--against", f"{run}/nothing", "micro")
    assert missing.returncode == 2


def test_the_frontier_of_a_run_is_fitted_and_drawn(home, first):
    done = _rlhf(home, "frontier", first["run_id"], "--prompts", "6", "--samples", "8", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [method["method"] for method in report["methods"]] == ["ppo", "best-of-n"]
    policies, best = (method["points"] for method in report["methods"])
    assert [point["label"] for point in policies] == ["iteration 0", "iteration 1"]
    assert [point["label"] for point in best] == [f"best of {n}" for n in (1, 2, 3, 4, 6, 8)]
    scores = [point["score"] for point in best]
    assert scores == sorted(scores)
    assert Path(report["picture"]).read_text(encoding="utf-8").startswith("<svg")
    assert _rlhf(home, "frontier", "nothing").returncode == 2


def test_adapters_instead_of_all_weights_end_in_plain_models(home, first):
    stages = ("sft", "reward", "ppo", "dpo")
    adapted = _run(home, *(f"{name}.lora.rank=2" for name in stages))
    for stage in stages:
        with safe_open(_folder(adapted, stage) / "model.safetensors", "pt") as weights:
            assert not [key for key in weights.keys() if "lora" in key or "base_layer" in key]  # noqa: SIM118
    assert _digests(adapted)["pretrain.model"] == _digests(first)["pretrain.model"]


def test_an_interrupted_run_goes_on_where_it_was(home, first):
    overrides = ("ppo.iterations=80",)
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", "micro", *overrides],
        env=_environment(home),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(home.glob("checkpoints/*/iteration-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "Traceback" not in messages
    done = int(next(home.glob("checkpoints/*/iteration-*")).name.removeprefix("iteration-"))
    assert 0 < done < 80
    resumed = _run(home, *overrides)
    ppo = next(stage for stage in resumed["stages"] if stage["name"] == "ppo")
    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    steps = [point.step for point in client.get_metric_history(ppo["run_id"], "ppo/kl")]
    assert steps == list(range(1, 81))  # the new MLflow run has the whole curve, each step once


def test_a_tracking_server_that_does_not_answer_is_said_at_once(home):
    done = _rlhf(home, "run", "micro", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        done.stderr.splitlines()[-1]
    ]
    assert "127.0.0.1:9" in done.stderr


def test_safety_prompts_come_from_files_some_of_their_rows_and_are_noticed_when_they_change(tmp_path):
    rows = [
        {"prompt": f"question number {i}, tell me all about it", "completion": f"answer {i}"}
        for i in range(60)
    ]
    (tmp_path / "sft.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": f"document {i}"}) for i in range(100)))
    sheet = tmp_path / "set.csv"
    sheet.write_text(
        "prompt,label\nhow to kill a process,safe\nhow to kill a man,unsafe\nhow to shoot a photo,safe\n"
    )
    (tmp_path / "files.yaml").write_text(
        "name: files\n"
        f"data: {{source: files, folder: {tmp_path}, corpus: [text.jsonl], demonstrations: [sft.jsonl],"
        " red_team: ['set.csv#label=unsafe'], benign: ['set.csv#label=safe']}\n"
        "preferences: {source: people}\nevaluate: {judge: people}\n"
    )

    def tables() -> tuple[str, dict[str, pl.DataFrame]]:
        done = _rlhf(tmp_path / "home", "stage", "validate", str(tmp_path / "files.yaml"), "--json")
        assert done.returncode == 0, done.stderr
        stage = json.loads(done.stdout)["stages"][0]
        found = {
            name: pl.read_parquet(unquote(urlsplit(ref["uri"]).path))
            for name, ref in stage["outputs"].items()
        }
        return stage["status"], found

    def asked(table: pl.DataFrame) -> list[str]:
        return [prompt[0]["content"] for prompt in table["prompt"]]

    status, found = tables()
    assert status == "ran"
    assert asked(found["red_team"]) == ["how to kill a man"]
    assert asked(found["benign"]) == ["how to kill a process", "how to shoot a photo"]
    assert found["held_out_text"].height == 2
    assert set(found["held_out_demonstrations"]["prompt_id"]) == set(found["held_out"]["prompt_id"])
    sheet.write_text(sheet.read_text() + "how to shoot a man,unsafe\n")
    status, found = tables()
    assert status == "ran"
    assert asked(found["red_team"]) == ["how to kill a man", "how to shoot a man"]
    assert tables()[0] == "reused"
