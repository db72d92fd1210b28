"""The page in a real browser: how fast the first item is there, and whether an impatient rater is heard."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.labelling import fill, free_port, server

pytestmark = pytest.mark.integration

IMPATIENT = """() => {
  const main = document.querySelector("main");
  new MutationObserver((changes, observer) => {
    const undo = document.getElementById("undo");
    if (!undo || !changes.some((change) => [...change.addedNodes].some((node) => node.id === "card"))) return;
    observer.disconnect();
    undo.click();
  }).observe(main, { childList: true, subtree: true });
}"""
"""Clicks Undo in the very task in which the next item's card comes into the document."""


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    folder = tmp_path_factory.mktemp("page")
    url, port = f"sqlite:///{folder / 'feedback.db'}", free_port()
    tokens = fill(url, raters=2, items=20)
    with server(url, folder, port):
        yield f"http://127.0.0.1:{port}", tokens


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path("/usr/bin/chromium").is_file():
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield launched
        launched.close()


def _sign_in(browser: Any, base: str, token: str) -> Any:
    page = browser.new_page()
    page.goto(base)
    page.fill("#token", token)
    page.keyboard.press("Enter")
    page.wait_for_selector("a.batch")
    return page


def test_undo_is_heard_as_soon_as_it_can_be_seen(page_url: tuple[str, list[str]], browser: Any):
    base, tokens = page_url
    page = _sign_in(browser, base, tokens[0])
    page.click("a.batch")
    page.wait_for_selector("#answer")
    page.evaluate(IMPATIENT)
    for key in ("2", "1", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("text=taken back", timeout=5_000)
    page.wait_for_selector("text=0 answered by you")
    page.close()


def test_the_first_item_can_be_seen_within_a_second(page_url: tuple[str, list[str]], browser: Any):
    base, tokens = page_url
    page = _sign_in(browser, base, tokens[1])
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        page.goto(f"{base}/batch/1", wait_until="commit")
        page.wait_for_selector("#responses .response >> nth=3")
        seconds.append(time.monotonic() - began)
    # The best of three: what else the machine does is not the page's fault.
    assert min(seconds) < 1.0, seconds
    page.close()
