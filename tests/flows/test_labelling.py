"""People rank in a real browser while the run is suspended, and it ends with a model trained on their rankings."""

import json
import socket
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhf.feedback import annotators
from rlhf.feedback.answers import Answer, submit
from rlhf.feedback.assigning import assign
from rlhf.feedback.database import connect

pytestmark = pytest.mark.e2e

OVERRIDES = [
    "preferences.source=people", "preferences.quota=0.84", "sample.num_prompts=6", "reward.steps=3", "dpo.steps=2",
]  # fmt: skip
"""Five of six prompts are to be ranked: the sixth is skipped."""


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


def test_a_suspended_run_goes_on_with_what_people_ranked_in_the_browser(place, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    env = place.machine(tmp_path / "home")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with (
        place.process("page", "flows.cli", "label", "serve", "--port", port, env=env),
        place.worker("worker", env),
    ):
        run = place.start_run(OVERRIDES)
        place.reaches(run, "Suspended", log="worker")
        token = place.command(env, "flows.cli", "label", "rater", "ann")
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            page = browser.new_page()
            faults: list[str] = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
            _rank_all(page, f"http://127.0.0.1:{port}", token)
            assert faults == []
            browser.close()
        place.reaches(run, "Completed", log="worker")
    _check_store(tmp_path / "home")


def test_a_run_that_one_machine_began_is_closed_by_a_command_and_ended_by_another(place, tmp_path):
    shared = {
        "RLHF_STORE": str(tmp_path / "store"),
        "RLHF_FEEDBACK_URL": f"sqlite:///{tmp_path / 'feedback.db'}",
    }
    first = place.machine(tmp_path / "first", **shared)
    second = place.machine(tmp_path / "second", **shared)
    run = place.start_run([*OVERRIDES, "labelling.rounds=2"])
    with place.worker("first", first):
        place.reaches(run, "Suspended", log="first")
    # The first machine is gone, with all that it kept for itself.
    (tmp_path / "first").rename(tmp_path / "lost")
    with place.worker("second", second):
        for turn in (1, 2):
            (waiting,) = [
                batch
                for batch in json.loads(place.command(second, "flows.cli", "label", "list", "--json"))
                if batch["closed_by"] is None
            ]
            assert _rank(shared["RLHF_FEEDBACK_URL"], waiting["id"], 3) == 3
            said = place.command(second, "flows.cli", "label", "close", waiting["name"])
            assert f"closed by the command line with 3 of {waiting['quota']} rankings" in said
            place.reaches(run, "Suspended" if turn == 1 else "Completed", log="second")
    assert not (tmp_path / "first").exists()
    entries = _entries(tmp_path, "report")
    before = ("validate", "pretrain", "sft", "sample")
    assert {entries[name]["status"] for name in before} == {"reused"}
    assert {name: entries[name]["metrics"]["rankings"] for name in ("preferences", "preferences-2")} == {
        "preferences": 3.0,
        "preferences-2": 3.0,
    }
    # Each resumed run is another look at the same work: the first round is trained once.
    assert entries["reward"]["status"] == "reused"
    assert entries["reward-2"]["status"] == "ran"


def _rank(url: str, batch: int, number: int) -> int:
    """Answer so many items of a batch as a person would, through the store."""
    feedback = connect(url)
    annotators.add(feedback, "ann")
    ann = annotators.named(feedback, "ann").id
    given = [
        Answer(assignment_id=assignment.id, attempt=assignment.attempt, ranks=(2, 1, 3))
        for assignment, _ in assign(feedback, batch, ann, number)
    ]
    kept = submit(feedback, ann, given)
    feedback.close()
    return kept


def _entries(home: Path, stage: str) -> dict[str, Any]:
    """Return the records of the one run that got to a stage."""
    (run,) = {path.parent for path in home.glob(f"store/runs/*/{stage}.json")}
    return {
        path.stem: json.loads(path.read_text())["record"]
        for path in run.glob("*.json")
        if path.stem != "config"
    }


def _check_store(home: Path) -> None:
    """The resumed run re-used what came before, and its reward model was trained on what ann said."""
    entries = _entries(home, "reward")
    assert {entries[name]["status"] for name in ("validate", "pretrain", "sft", "sample")} == {"reused"}
    assert entries["preferences"]["status"] == entries["reward"]["status"] == "ran"
    collected = entries["preferences"]["outputs"]
    assert entries["reward"]["inputs"]["preferences"]["digest"] == collected["preferences"]["digest"]
    rankings = pl.read_parquet(collected["rankings"]["uri"].removeprefix("file://"))
    assert rankings["rater"].to_list() == ["ann"] * 5
    unranked = [sum(rank is None for rank in ranks) for ranks in rankings["ranks"].to_list()]
    assert sorted(unranked) == [0, 0, 1, 1, 1]
