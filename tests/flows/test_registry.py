"""Champions from the command line: promoted, judged against, rolled back, approved, traced, exported, served."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
import openai
import pandas as pd
import pytest
import yaml
from transformers import pipeline

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
PPO = "{method: ppo, iterations: 2, batch_size: 8, minibatch_size: 4, epochs: 1, warmup_iterations: 0, max_new_tokens: 16}"
LENIENT = [
    f"aligners=[{PPO}]",
    "gate.min_prompts=8", "gate.min_win_rate_low=0", "gate.max_right_drop=1",
    "gate.max_rude=1", "gate.max_length_ratio=60", "gate.max_kl=10000", "gate.max_perplexity_ratio=1000",
    "gate.max_harm_rise=1", "gate.max_over_refusal_rise=1",
]  # fmt: skip
"""A gate that lets pass what has learnt next to nothing: what it does with a passing model is the subject here."""


def _environment(home: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return {**ours, "RLHF_HOME": str(home), "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)}


def _rlhf(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(
        command, env=_environment(home), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )


def _done(home: Path, *arguments: str, code: int = 0) -> Any:
    done = _rlhf(home, *arguments)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def _run(home: Path, *overrides: str, code: int = 0) -> dict[str, Any]:
    return dict(_done(home, "run", "micro", *LENIENT, *overrides, "--json", code=code))


def _statuses(summary: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in summary["stages"]}


def _versions(home: Path) -> dict[int, dict[str, Any]]:
    return {one["version"]: one for one in _done(home, "models", "--name", "micro", "--json")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first(home: Path) -> dict[str, Any]:
    return _run(home)


def test_a_model_that_passes_becomes_champion_with_its_evidence(home: Path, first: dict[str, Any]) -> None:
    promotion = first["promotion"]
    assert (promotion["verdict"], promotion["alias"]) == ("promoted", "champion")
    champion = _versions(home)[promotion["version"]]
    assert champion["aliases"] == ["champion"]
    tags = champion["tags"]
    assert tags["gate"] == "passed"
    assert tags["gate_champion"] == "0"
    assert tags["gate.win_rate_over_SFT"].startswith("pass: ")
    assert tags["promotion_evidence"] == tags["gate_evidence"]
    evidence = Path(unquote(urlsplit(tags["gate_evidence_uri"]).path)).read_bytes()
    assert f"sha256:{hashlib.sha256(evidence).hexdigest()}" == tags["gate_evidence"]
    decision = json.loads(evidence)["decision"]
    assert decision["verdicts"][tags["aligner"]] == "pass"
    assert decision["rules"][tags["aligner"]][0]["estimate"]["low"] > 0
    files = {path.name for path in Path(unquote(urlsplit(champion["source"]).path)).iterdir()}
    assert {"README.md", "gate.json", "MLmodel", "model.safetensors", "tokenizer.json"} <= files


def test_the_same_run_again_leaves_the_champion_what_it_is(home: Path, first: dict[str, Any]) -> None:
    again = _run(home)
    assert again["promotion"] == first["promotion"]
    # Compared with the champion, which is one of its own models: that needs no new answers.
    assert {name for name, how in _statuses(again).items() if how == "ran"} == {"gate", "register", "report"}
    assert _versions(home)[first["promotion"]["version"]]["tags"]["gate.win_rate_over_SFT"]


def test_the_next_run_has_to_beat_the_champion_and_a_rollback_is_not_overruled(
    home: Path, first: dict[str, Any]
) -> None:
    one = first["promotion"]["version"]
    second = _run(home, "ppo.kl_coef=0.7")
    assert _statuses(second)["evaluate-champion"] == "ran"
    assert "champion" in second["evaluation"]
    two = second["promotion"]["version"]
    assert two != one
    assert second["promotion"]["verdict"] == "promoted"
    assert _versions(home)[two]["tags"]["gate_champion"] == str(one)
    assert _versions(home)[two]["tags"]["promoted_over"] == str(one)
    assert f"version {one} is champion again" in _done(
        home, "rollback", "--name", "micro", "--reason", "worse"
    )
    assert _versions(home)[two]["tags"]["rolled_back_because"] == "worse"
    third = _run(home, "ppo.kl_coef=0.7", code=3)
    assert third["promotion"]["verdict"] == "refused"
    assert _versions(home)[one]["aliases"] == ["champion"]


def test_a_person_has_the_last_word_where_the_recipe_says_so(home: Path, first: dict[str, Any]) -> None:
    overrides = ("gate.approval=manual", "ppo.kl_coef=0.4")
    waiting = _run(home, *overrides)
    version = waiting["promotion"]["version"]
    assert (waiting["promotion"]["verdict"], waiting["promotion"]["alias"]) == ("waiting", "candidate")
    named = ("approve", str(version), "--name", "micro")
    assert _rlhf(home, *named).returncode == 2  # no reason
    assert "now champion" in _done(home, *named, "--reason", "read thirty answers")
    found = _versions(home)[version]
    assert found["aliases"] == ["champion"]
    assert found["tags"]["approval"] == "approved"
    assert found["tags"]["promoted_because"] == "read thirty answers"
    twice = _rlhf(home, *named, "--reason", "again")
    assert twice.returncode == 2
    assert "does not wait for approval" in twice.stderr
    assert _run(home, *overrides)["promotion"]["alias"] == "champion"


def test_a_rejected_model_stays_what_it_is(home: Path, first: dict[str, Any]) -> None:
    overrides = ("gate.approval=manual", "ppo.kl_coef=0.3")
    version = _run(home, *overrides)["promotion"]["version"]
    _done(home, "approve", str(version), "--name", "micro", "--reject", "--reason", "rude")
    found = _versions(home)[version]
    assert found["aliases"] == []
    assert (found["tags"]["approval"], found["tags"]["approval_because"]) == ("rejected", "rude")
    assert _run(home, *overrides, code=3)["promotion"]["verdict"] == "refused"


def test_lineage_walks_back_from_a_version_and_on_from_its_data(home: Path, first: dict[str, Any]) -> None:
    version = first["promotion"]["version"]
    found = _done(home, "lineage", str(version), "--name", "micro", "--json")
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert {"validate", "pretrain", "sft", found["tags"]["aligner"]} <= set(stages)
    pairs = stages["preferences"]["outputs"]["preferences"]["digest"]
    traced = _done(home, "lineage", "--data", pairs[7:19], "--json")
    assert version in {one["version"] for one in traced["versions"]}
    assert "reward" in {model["stage"] for model in traced["models"]}
    assert "sft" not in {model["stage"] for model in traced["models"]}
    rankings = Path(unquote(urlsplit(stages["preferences"]["outputs"]["rankings"]["uri"]).path))
    row = pd.read_parquet(rankings).iloc[0]
    assert row["rater"]
    assert _rlhf(home, "lineage", "--data", "0" * 64).returncode == 2
    assert _rlhf(home, "lineage").returncode == 2


def test_a_version_whose_weights_were_touched_is_not_promoted(home: Path, first: dict[str, Any]) -> None:
    version = first["promotion"]["version"]
    weights = Path(unquote(urlsplit(_versions(home)[version]["source"]).path)) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused = _rlhf(home, "promote", str(version), "--name", "micro")
    weights.write_bytes(whole)
    assert refused.returncode == 1
    assert f"version {version} have sha256:" in refused.stderr


def test_other_programs_load_the_champion(home: Path, first: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "exported"
    assert "hashed on arrival" in _done(home, "export", "champion", str(out), "--name", "micro")
    chat = pipeline("text-generation", model=str(out), device="cpu")
    asked = [{"role": "user", "content": "When do you open?"}]
    assert chat(asked, max_new_tokens=8, do_sample=False)[0]["generated_text"][-1]["role"] == "assistant"
    assert yaml.safe_load((out / "README.md").read_text().split("---")[1])["library_name"] == "transformers"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    try:
        loaded = mlflow.pyfunc.load_model("models:/micro@champion", suppress_warnings=True)
    finally:
        mlflow.set_tracking_uri(before)
    said = loaded.predict(pd.DataFrame({"prompt": ["When do you open?"]}), params={"max_new_tokens": 8})
    assert isinstance(said[0], str)


@pytest.fixture
def served(home: Path, first: dict[str, Any], tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    guard = tmp_path / "guard.yaml"
    guard.write_text("{best_of: 3, blocked_input: [password]}", encoding="utf-8")
    log = tmp_path / "serve.log"
    command = [sys.executable, "-m", "flows.cli", "serve", "--name", "micro", "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--guard", str(guard), "--feedback", "--max-new-tokens", "16"],
            env=_environment(home),
            cwd=ROOT,
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + 120
        while b"serving micro" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_the_champion_is_served_with_its_guardrails(
    home: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client = openai.OpenAI(base_url=served, api_key="unused", timeout=60)
    asked: list[Any] = [{"role": "user", "content": "When do you open?"}]
    found = client.chat.completions.create(model="micro", messages=asked, seed=1)
    parts = client.chat.completions.create(model="micro", messages=asked, seed=1, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == found.choices[0].message.content
    secret: list[Any] = [{"role": "user", "content": "your password?"}]
    refused = client.chat.completions.create(model="micro", messages=secret)
    assert refused.choices[0].finish_reason == "content_filter"
    lines = (home / "serving/decisions.jsonl").read_text(encoding="utf-8").splitlines()
    decisions = [json.loads(line) for line in lines]
    assert [(one["action"], one["drawn"]) for one in decisions] == [
        ("allowed", 3),
        ("allowed", 3),
        ("refused", 0),
    ]
    assert decisions[0]["score"] is not None
    assert decisions[0]["model"].startswith("micro version ")
