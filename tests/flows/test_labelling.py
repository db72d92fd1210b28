"""People rank in a real browser while the run is suspended, and it ends with a model trained on their rankings."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest
import yaml

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
OVERRIDES = [
    "preferences.source=people", "preferences.quota=0.84", "sample.num_prompts=6", "reward.steps=3", "dpo.steps=2",
]  # fmt: skip
"""Five of six prompts are to be ranked: the sixth is skipped."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(log: Path, *arguments: str, env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=env,
            cwd=ROOT,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(timeout=15)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s: {what}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - loopback
            return bool(response.status == 200)
    except OSError:
        return False


def _rlhf(env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return {
        **ours,
        "RLHF_HOME": str(tmp_path / "home"),
        "PREFECT_HOME": str(tmp_path / "home" / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{_free_port()}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PYTHONPATH": str(ROOT),
    }


def _deploy(env: dict[str, str], tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    tree["pull"] = [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
    tree["deployments"][0]["schedules"] = []
    path = tmp_path / "prefect.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    _rlhf(env, "prefect", "--no-prompt", "work-pool", "create", "rlhf", "--type", "process")
    _rlhf(env, "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path))


def _rank_all(page: Any, url: str, token: str) -> None:
    """Sign in and answer six items: by keys, by drag, with a tie, after an undo, one skipped, and by buttons."""
    page.goto(url)
    page.fill("#token", token)
    page.keyboard.press("Enter")
    page.click("a.batch")
    page.wait_for_load_state("load")
    number = iter(range(1, 9))

    def answered() -> None:
        page.wait_for_selector(f"text={next(number)} answered by you")

    for key in ("2", "1", "3", "Enter"):
        page.keyboard.press(key)
    answered()
    # A drag: the last response to the top, which ranks what lies above it, too.
    grip = page.locator(".response .side").nth(2).bounding_box()
    top = page.locator(".response").nth(0).bounding_box()
    page.mouse.move(grip["x"] + 10, grip["y"] + 10)
    page.mouse.down()
    page.mouse.move(grip["x"] + 10, top["y"] + 40, steps=6)
    page.mouse.move(top["x"] + 10, top["y"] + 4, steps=4)
    page.mouse.up()
    page.keyboard.press("1")
    assert page.locator(".response").nth(0).get_attribute("data-place") == "2"
    assert page.input_value("input[name=ranks]") == "2,,1"
    page.click("#submit")
    answered()
    for key in ("3", "1", "=", "2"):
        page.keyboard.press(key)
    assert page.input_value("input[name=ranks]") == "1,2,1"
    page.keyboard.press("Enter")
    answered()
    page.keyboard.press("u")
    page.wait_for_selector("text=taken back")
    number = iter(range(3, 9))
    for key in ("1", "2", "Backspace", "3", "Enter"):
        page.keyboard.press(key)
    answered()
    page.keyboard.press("s")
    page.click("text=cannot judge")
    answered()
    for _ in range(3):
        page.locator(".response:not(.ranked) .up").first.click()
    page.click("#submit")
    answered()
    page.click("text=too verbose >> nth=0")
    for key in ("1", "3", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("text=This batch is complete")


def test_a_suspended_run_goes_on_with_what_people_ranked_in_the_browser(env, tmp_path, monkeypatch):
    playwright = pytest.importorskip("playwright.sync_api")
    api, home = env["PREFECT_API_URL"], Path(env["RLHF_HOME"])
    (home / "prefect").mkdir(parents=True)
    for name in ("PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.setenv(name, env[name])
    page_port = _free_port()
    port = api.split(":")[2].split("/")[0]
    with (
        _process(tmp_path / "server.log", "prefect", "server", "start", "--port", port, env=env),
        _process(tmp_path / "page.log", "flows.cli", "label", "serve", "--port", str(page_port), env=env),
    ):
        _until(lambda: _answers(f"{api}/health"), 120, "Prefect's server")
        _deploy(env, tmp_path)
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with (
            temporary_settings({PREFECT_API_URL: api}),
            get_client(sync_client=True) as client,
            _process(tmp_path / "worker.log", "prefect", "worker", "start", "--pool", "rlhf", env=env),
        ):
            deployment = client.read_deployment_by_name("rlhf-recipe/helpdesk-weekly")
            run = client.create_flow_run_from_deployment(
                deployment.id, parameters={"recipe": "micro", "overrides": OVERRIDES}
            )

            def state() -> str:
                return str(client.read_flow_run(UUID(str(run.id))).state_name)

            ended = {"Failed", "Crashed", "Completed", "TimedOut"}
            found = _until(lambda: (now := state()) in {"Suspended", *ended} and now, 240, "suspended")
            assert found == "Suspended", (tmp_path / "worker.log").read_text()[-3000:]
            token = _rlhf(env, "flows.cli", "label", "rater", "ann")
            with playwright.sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
                page = browser.new_page()
                faults: list[str] = []
                page.on("pageerror", lambda error: faults.append(str(error)))
                page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
                _rank_all(page, f"http://127.0.0.1:{page_port}", token)
                assert faults == []
                browser.close()
            found = _until(lambda: (now := state()) in ended and now, 240, "completed")
            assert found == "Completed", (tmp_path / "worker.log").read_text()[-3000:]
    _check_store(home)


def _check_store(home: Path) -> None:
    """The resumed run re-used what came before, and its reward model was trained on what ann said."""
    runs = {path.parent.name for path in home.glob("store/runs/*/reward.json")}
    (resumed,) = runs
    entries = {
        path.stem: json.loads(path.read_text())["record"] for path in home.glob(f"store/runs/{resumed}/*.json")
        if path.stem != "config"
    }  # fmt: skip
    assert {entries[name]["status"] for name in ("validate", "pretrain", "sft", "sample")} == {"reused"}
    assert entries["preferences"]["status"] == entries["reward"]["status"] == "ran"
    collected = entries["preferences"]["outputs"]
    assert entries["reward"]["inputs"]["preferences"]["digest"] == collected["preferences"]["digest"]
    rankings = pl.read_parquet(collected["rankings"]["uri"].removeprefix("file://"))
    assert rankings["rater"].to_list() == ["ann"] * 5
    unranked = [sum(rank is None for rank in ranks) for ranks in rankings["ranks"].to_list()]
    assert sorted(unranked) == [0, 0, 1, 1, 1]
