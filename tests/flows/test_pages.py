"""MLflow's and Prefect's own pages in a real browser, on what runs have left there.

With RLHF_SCREENSHOTS=FOLDER the pictures of the documentation are taken on the way.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.config.loading import load_config
from tasks.run import config_digest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
WAIT = 60_000
"""Milliseconds for a page of theirs to show something: they load megabytes of script."""


AS_IF_LONG = """
from flows import cli
from tasks import headline

headline.LONG_SECONDS = headline.BETWEEN_SECONDS = 0.0  # what a stage of minutes shows, in one of a second
cli.main()
"""


class Pages:
    """The servers of `rlhf ui` over the home of two runs."""

    def __init__(self, home: Path, runs: list[dict[str, Any]], mlflow: str, prefect: str) -> None:
        self.home = home
        self.runs = runs
        self.mlflow = mlflow
        self.prefect = prefect

    def stage(self, name: str, run: int = 0) -> str:
        """Return the MLflow run of a stage."""
        return next(stage["run_id"] for stage in self.runs[run]["stages"] if stage["name"] == name)


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(  # noqa: S310 - our own loopback address
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    home = tmp_path_factory.mktemp("pages")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environment = {**ours, "RLHF_HOME": str(home), "PYTHONPATH": str(ROOT)}

    def rlhf(
        *arguments: str, call: tuple[str, ...] = ("-m", "flows.cli")
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *call, *arguments],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    import socket

    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(str(probe.getsockname()[1]))
    served = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "ui", "--prefect-port", ports[0], "--mlflow-port", ports[1]],
        env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 180
        while not (home / "servers.json").exists():
            assert served.poll() is None, "rlhf ui ended"
            assert time.monotonic() < deadline, "rlhf ui does not answer"
            time.sleep(0.5)
        first = rlhf("run", "micro", "--json")
        second = rlhf("run", "micro", "ppo.kl_coef=0.3", "--json", call=("-c", AS_IF_LONG))
        runs = [json.loads(done.stdout) for done in (first, second)]
        assert rlhf("promote", "1", "--name", "micro").returncode == 0
        assert rlhf("deploy").returncode == 0
        yield Pages(home, runs, f"http://127.0.0.1:{ports[1]}", f"http://127.0.0.1:{ports[0]}")
    finally:
        served.terminate()
        served.wait(timeout=60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield launched
        launched.close()


def _open(browser: Any, url: str, *texts: str, shot: str = "") -> Any:
    """Open a page, wait until it shows the texts, and take its picture if those of the documentation are wanted."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.goto(url)
    for text in texts:
        page.get_by_text(text).first.wait_for(timeout=WAIT)
    for assistant in page.get_by_role("button", name=re.compile("close", re.IGNORECASE)).all()[:1]:
        assistant.click(timeout=5_000, no_wait_after=True)  # MLflow's, which takes a fifth of the picture
    _picture(page, shot)
    return page


def _picture(page: Any, name: str) -> None:
    """Take a picture if it has a name and those of the documentation are wanted."""
    if name and (folder := os.environ.get("RLHF_SCREENSHOTS")):
        page.wait_for_timeout(1500)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def _experiment(pages: Pages) -> str:
    found = _ask(f"{pages.mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=micro")
    return str(found["experiment"]["experiment_id"])


def _compare(pages: Pages, runs: list[str]) -> str:
    asked = {"runs": json.dumps(runs), "experiments": json.dumps([_experiment(pages)])}
    return f"{pages.mlflow}/#/compare-runs?{urllib.parse.urlencode(asked)}"


def _metric(page: Any, name: str) -> Any:
    """Scroll the compare page's table of metrics, which has only the visible rows, to a metric, and return its link."""
    link = page.get_by_role("link", name=name, exact=True)
    page.locator('a[title="Plot chart"]').first.wait_for(timeout=WAIT)
    # The last grid has the values; the names beside it follow when it is scrolled.
    table = page.locator('[class*="collapse-content-box"]:has(a[title="Plot chart"])').last
    grid = table.locator(".ReactVirtualized__Grid").last
    grid.scroll_into_view_if_needed()
    grid.evaluate("grid => grid.scrollTo(0, 0)")
    for _ in range(60):
        row, view = link.first.bounding_box() if link.count() else None, grid.bounding_box()
        if row and view["y"] <= row["y"] <= view["y"] + view["height"] - 40:
            return link.first
        grid.evaluate("grid => grid.scrollBy(0, 200)")
        page.wait_for_timeout(100)
    raise AssertionError(f"the compare page has no row {name}")


def _shown(page: Any, name: str, shot: str = "") -> list[tuple[str, float]]:
    """Follow a metric of the compare page to its chart, and return the runs below it with their last values."""
    _metric(page, name).click()
    page.get_by_text("Latest", exact=True).first.wait_for(timeout=WAIT)
    page.locator(".plotly .trace").first.wait_for(state="attached", timeout=WAIT)
    if shot:
        _picture(page, shot)
    found = re.findall(r"^(\S+)\t(-?[\d.e-]+) \(step=\d+\)", page.inner_text("body"), re.MULTILINE)
    return sorted((run, float(value)) for run, value in found)


def test_ppo_and_dpo_stand_side_by_side_with_their_headline_on_mlflows_page(pages, browser):
    url = _compare(pages, [pages.stage("ppo"), pages.stage("dpo")])
    page = _open(browser, url, "evaluate/win_rate", shot="mlflow-compare")
    judged = pages.runs[0]["evaluation"]
    for metric in ("win_rate", "kl"):
        assert _shown(page, f"evaluate/{metric}") == [(name, judged[name][metric]) for name in ("dpo", "ppo")]
        page.go_back()
    (curve,) = _shown(
        page, "ppo/score"
    )  # one of them has it, and MLflow writes its name instead of the run's
    assert curve[0] == "ppo/score"


def test_the_headline_of_two_runs_stands_side_by_side_and_what_was_set_differently(pages, browser):
    url = _compare(pages, [run["run_id"] for run in pages.runs])
    page = _open(browser, url, "Run details", "Show diff only")
    page.get_by_text("Show diff only").first.click()
    page.get_by_text("ppo.kl_coef", exact=True).first.wait_for(timeout=WAIT)
    rates = sorted(run["evaluation"]["ppo"]["win_rate"] for run in pages.runs)
    assert _shown(page, "ppo/win_rate") == [("micro", rate) for rate in rates]


def test_the_curves_of_two_runs_lie_over_each_other(pages, browser):
    page = _open(
        browser, _compare(pages, [pages.stage("ppo", run=0), pages.stage("ppo", run=1)]), "Run details"
    )
    _shown(page, "ppo/score", shot="mlflow-curve")
    assert page.get_by_text("ppo (ppo/score)", exact=True).count() == 2
    assert page.inner_text("body").count("(step=2)") >= 2  # the last of both iterations, of both runs


def test_the_runs_page_says_what_came_of_it(pages, browser):
    url = f"{pages.mlflow}/#/experiments/{_experiment(pages)}/runs/{pages.runs[0]['run_id']}"
    page = _open(browser, url, "No model passed the gate", shot="mlflow-run")
    said = page.inner_text("body")
    assert "win rate over SFT" in said
    assert "verdict" in said


def test_the_models_page_shows_versions_aliases_and_tags(pages, browser):
    page = _open(browser, f"{pages.mlflow}/#/models/micro", "champion")
    assert "Version 2" in page.inner_text("body")
    version = _open(browser, f"{pages.mlflow}/#/models/micro/versions/1", "champion", shot="mlflow-model")
    assert "aligner" in version.inner_text("body")


def test_the_saved_queries_of_the_documentation_find_their_runs(pages):
    import mlflow

    mlflow.set_tracking_uri(pages.mlflow)
    text = (ROOT / "docs" / "how-to" / "find-runs.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("|") and "tags." in line]
    assert len(rows) == 5
    expected = {
        "best PPO": 2, "promoted a model": 0, "one seed and recipe": 2, "what a stage computed": 2, "KL budget": 2,
    }  # fmt: skip
    for question, query, order in rows:
        query = query.strip().strip("`").strip().replace("'helpdesk'", "'micro'")
        order = order.strip(" |").strip("`").strip()
        found = mlflow.search_runs(
            experiment_names=["micro"], filter_string=query, order_by=[order] if order else None
        )
        wanted = next(count for name, count in expected.items() if name in question)
        assert len(found) == wanted, (question, len(found))
        if "best" in question:
            rates = found["metrics.evaluate/win_rate"].tolist()
            assert rates == sorted(rates, reverse=True)
    month = int((time.time() - 30 * 86_400) * 1000)
    recent = f"tags.stage = 'ppo' AND attributes.start_time > {month}"
    assert len(mlflow.search_runs(experiment_names=["micro"], filter_string=recent)) == 2
    digest = next(stage for stage in pages.runs[0]["stages"] if stage["name"] == "validate")["outputs"][
        "prompts"
    ]["digest"]
    on_data = f"tags.`input.prompts` = '{digest}'"
    found = mlflow.search_runs(experiment_names=["micro"], filter_string=on_data)
    assert {run["run_id"] for run in pages.runs} <= set(found["run_id"])
    assert mlflow.search_runs(
        experiment_names=["micro"], filter_string="tags.`input.prompts` = 'sha256:0'"
    ).empty


def test_tags_and_description_are_there_to_filter_by(pages):
    from mlflow import MlflowClient

    client = MlflowClient(pages.mlflow)
    tags = client.get_run(pages.runs[1]["run_id"]).data.tags
    assert (tags["verdict"], tags["judge"], tags["data"]) == ("refused", "utility", "helpdesk")
    assert tags["config_digest"] == config_digest(load_config("micro", ["ppo.kl_coef=0.3"]))
    stage = client.get_run(pages.stage("sft", run=1)).data.tags["mlflow.note.content"]
    assert stage.startswith("# sft: re-used")


def test_each_stage_has_an_artifact_with_its_headline_and_a_link_to_its_mlflow_run(pages):
    found = _ask(f"{pages.prefect}/api/artifacts/latest/filter", {"limit": 200})
    texts = {artifact["key"]: artifact["data"] for artifact in found}
    for stage in pages.runs[1]["stages"]:
        text = texts[f"micro-{stage['name']}"]
        assert f"/runs/{stage['run_id']})" in text
        assert re.search(rf"^# {stage['name']}: (ran in|re-used)", text)


def test_a_long_stage_has_shown_how_far_it_is(pages):
    found = _ask(f"{pages.prefect}/api/artifacts/latest/filter", {"limit": 200})
    progress = {one["key"]: one for one in found if one["type"] == "progress"}
    assert set(progress) >= {"micro-ppo-progress"}
    assert progress["micro-ppo-progress"]["data"] == 100.0
    assert progress["micro-ppo-progress"]["description"] == "step 2 of 2"


def test_the_deployments_page_shows_the_form_and_the_schedule(pages, browser):
    found = _ask(f"{pages.prefect}/api/deployments/filter", {})
    deployment = next(one for one in found if one["name"] == "helpdesk-nightly")
    properties = deployment["parameter_openapi_schema"]["properties"]
    assert list(properties) == ["recipe", "overrides", "fresh"]
    assert "shipped name" in properties["recipe"]["description"]
    page = _open(browser, f"{pages.prefect}/deployments/deployment/{deployment['id']}", "helpdesk-nightly")
    page.get_by_text(re.compile("02:00 AM", re.IGNORECASE)).first.wait_for(timeout=WAIT)
    form = _open(
        browser, f"{pages.prefect}/deployments/deployment/{deployment['id']}/run", "recipe", "overrides", "fresh",
        shot="prefect-form",
    )  # fmt: skip
    assert "section.key=value" in form.inner_text("body")
