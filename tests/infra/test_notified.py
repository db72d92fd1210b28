"""Prefect's automations, on its real server: rankings start a deployment, and a webhook hears how runs end."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration


def until(told: list[dict[str, Any]], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for message in told:
            if wanted(message):
                return message
        time.sleep(0.5)
    pytest.fail(f"nobody was told; heard: {told}")


def test_deploying_again_leaves_one_of_each_automation_and_a_paused_one_paused(
    servers: Any, scheduled: str, told: tuple[str, list[dict[str, Any]]]
) -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from flows.automations import keep_automations

    def automations() -> dict[str, dict[str, Any]]:
        found = servers.prefect("automations/filter", {})
        assert len({one["name"] for one in found}) == len(found)
        return {one["name"]: one for one in found}

    before = automations()
    others = {name for name in before if not name.startswith("rlhf: ")}
    assert len(before) - len(others) == 4
    # Of the deployment that rankings start, and of the removed one, which Prefect leaves behind.
    assert others == {"retrain__automation_1", "helpdesk-retrain__automation_1"}
    paused = before["rlhf: people are waited for"]["id"]
    servers.prefect(f"automations/{paused}", {"enabled": False}, method="PATCH")
    login = {
        PREFECT_API_URL: servers.client["PREFECT_API_URL"],
        PREFECT_API_AUTH_STRING: servers.secret("prefect_auth"),
    }
    with temporary_settings(login):
        assert len(keep_automations(told[0])) == 4
    after = automations()
    assert {name: one["id"] for name, one in after.items()} == {
        name: one["id"] for name, one in before.items()
    }
    assert [name for name, one in after.items() if not one["enabled"]] == ["rlhf: people are waited for"]


def test_the_form_of_a_deployment_has_described_and_checked_fields(servers: Any, scheduled: str) -> None:
    (found,) = servers.prefect("deployments/filter", {"deployments": {"name": {"any_": [scheduled]}}})
    schema = found["parameter_openapi_schema"]
    assert schema["required"] == ["recipe"]
    fields = sorted(schema["properties"], key=lambda name: schema["properties"][name]["position"])
    assert fields == ["recipe", "overrides", "fresh"]
    assert all(field["description"] for field in schema["properties"].values())
    assert schema["properties"]["overrides"]["items"]["pattern"]
    assert found["enforce_parameter_schema"]


def test_enough_new_rankings_start_the_deployment_once_and_its_failure_is_told(
    servers: Any, scheduled: str, told: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    def rank(number: int) -> None:
        file = tmp_path / f"batch{number}.jsonl"
        rows = [
            {"prompt_id": f"{number}-{row}", "prompt": "Hi?", "responses": ["a", "b"], "ranks": [1, 2]}
            for row in range(3)
        ]
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        for _ in range(2):  # a batch that is told of twice counts once
            servers.command("flows.cli", "label", "import", str(file), RLHF_RETRAIN_AFTER="5")

    rank(1)  # three are not enough
    until(told[1], lambda message: message.get("event") == "rlhf.rankings.closed")
    assert not [message for message in told[1] if message.get("event") == "rlhf.rankings.enough"]
    rank(2)  # six are
    run = servers.ended("retrain")
    assert run["state_type"] == "FAILED"  # it names no recipe, so that it fails at once
    message = until(told[1], lambda message: message.get("state") == "Failed")
    assert message["path"] == "/canary-notify-token"
    assert message["flow_run_id"] == run["id"]
    assert message["text"] == f"rlhf-recipe / {run['name']}: Failed"
    time.sleep(5)  # a second run would be there by now
    started = servers.prefect("flow_runs/filter", {"deployments": {"name": {"any_": ["retrain"]}}})
    assert len(started) == 1
    closed = [message for message in told[1] if message.get("event") == "rlhf.rankings.closed"]
    assert sorted(message["payload"]["total"] for message in closed) == [3, 6]


def test_what_the_gate_says_is_told(
    servers: Any, scheduled: str, told: tuple[str, list[dict[str, Any]]]
) -> None:
    servers.ended(scheduled)
    message = until(told[1], lambda message: str(message.get("event")).startswith("rlhf.gate."))
    assert message["event"] == "rlhf.gate.promoted"
    assert message["payload"]["version"] == 1
    assert message["text"] == "micro: the gate's verdict is promoted, version 1"


def test_the_champion_is_judged_again_and_its_version_says_so(servers: Any, scheduled: str) -> None:
    servers.ended(scheduled)
    servers.prefect(f"deployments/{servers.deployment('again')['id']}/create_flow_run", {})
    run = servers.ended("again")
    assert run["state_type"] == "COMPLETED", servers.log("worker")[-3000:]
    version = servers.mlflow("model-versions/get?name=micro&version=1")["model_version"]
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert tags["reevaluated_at"].startswith("20")
    # The same prompts, judge and policies as at its gate: the same numbers.
    for name in ("win_rate", "win_rate_low", "win_rate_high"):
        assert tags[f"reevaluated.{name}"] == tags[name]
