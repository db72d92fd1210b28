"""The page in a real browser: what the script adds, on a desk and on a phone, and whether everybody can use it."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.report.comparison import render_comparison
from rlhf.report.content import Answer, PairedResponses, ReportContent, Turn
from rlhf.report.page import render

pytestmark = pytest.mark.integration
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def many(content: ReportContent) -> ReportContent:
    """Thirty prompts; on every third PPO is rude, and score and gold part more and more."""
    pairs = tuple(
        PairedResponses(
            prompt=(Turn(role="user", text=f"Question number {number}?"),),
            answers=(
                Answer(policy="sft", text="Yes.", score=0.0, gold=0.0),
                Answer(
                    policy="ppo", text="Well, yes.", score=number / 10, gold=0.0, rude=number % 3 == 0, kl=5.0,
                    pieces=(("Well,", 4.0), (" yes.", -1.0)),
                ),
            ),
        )
        for number in range(30)
    )  # fmt: skip
    return content.model_copy(update={"responses": pairs})


def _open(browser: Any, html: str, tmp_path: Path, **options: Any) -> tuple[Any, list[str]]:
    path = tmp_path / "page.html"
    path.write_text(html, encoding="utf-8")
    page = browser.new_page(**options)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    return page, complaints


def _prompts(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#talks .prompt").all_inner_texts()]


def test_responses_are_paged_filtered_and_sorted(browser, many, tmp_path):
    page, complaints = _open(browser, render(many), tmp_path)
    assert len(_prompts(page)) == 8
    assert page.inner_text("[data-tool=status]") == "1 to 8 of 30"
    page.click("[data-tool=on]")
    assert _prompts(page)[0] == "Question number 8?"
    page.select_option("[data-tool=only]", "rude")
    assert page.inner_text("[data-tool=status]") == "1 to 8 of 10 (30 in all)"
    assert _prompts(page)[:2] == ["Question number 0?", "Question number 3?"]
    page.select_option("[data-tool=order]", "disagreement")
    assert _prompts(page)[0] == "Question number 27?"
    page.fill("[data-tool=words]", "number 1")
    assert _prompts(page) == ["Question number 18?", "Question number 15?", "Question number 12?"]
    page.fill("[data-tool=words]", "no such words")
    assert page.inner_text("[data-tool=status]") == "none of them"
    assert complaints == []


def test_tokens_take_their_colours_when_asked(browser, many, tmp_path):
    page, _ = _open(browser, render(many), tmp_path)
    colour = "node => getComputedStyle(node).backgroundColor"
    token = page.locator(".up3").nth(-1)
    assert token.evaluate(colour) == "rgba(0, 0, 0, 0)"
    page.check("#colours")
    assert token.evaluate(colour) != "rgba(0, 0, 0, 0)"
    assert page.is_visible(".key")


def test_the_pointer_reads_values_off_a_curve(browser, content, tmp_path):
    page, _ = _open(browser, render(content), tmp_path)
    chart = page.locator("svg[aria-label='kl of ppo by step']")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 320 / 340, box["y"] + box["height"] / 2)
    # The last of 30 iterations: 0.45 * 29 + 0.3 * sin(29) = 12.85.
    said = page.inner_text(".hover")
    assert said.startswith("step 29: ")
    assert float(said.rpartition(" ")[2]) == pytest.approx(12.85, abs=0.05)
    page.mouse.move(0, 0)
    assert page.is_hidden(".hover")


@pytest.mark.parametrize("which", ["report", "comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser, many, tmp_path, scheme, which):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    html = render(many) if which == "report" else render_comparison(many, many, {"ppo.kl_coef": (0.1, 0.2)})
    page, _ = _open(browser, html, tmp_path, color_scheme=scheme, bypass_csp=True)
    page.check("#colours")
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = axe.Axe().run(page).response["violations"]
    serious = {
        rule["id"]: [node["html"][:160] for node in rule["nodes"][:3]]
        for rule in found
        if rule["impact"] in {"serious", "critical"}
    }
    assert serious == {}, json.dumps(serious, indent=1)


@pytest.mark.parametrize("which", ["report", "comparison"])
def test_a_phone_needs_no_sideways_scrolling(browser, many, tmp_path, which):
    html = render(many) if which == "report" else render_comparison(many, many, {"ppo.kl_coef": (0.1, 0.2)})
    page, _ = _open(browser, html, tmp_path, viewport={"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert page.is_visible("#talks")


def test_without_script_and_on_paper_everything_is_there(browser, many, tmp_path):
    page, _ = _open(browser, render(many), tmp_path, java_script_enabled=False)
    assert page.locator("article.talk").count() == 30
    assert not page.is_visible("#tools")
    printed, _ = _open(browser, render(many), tmp_path)
    assert len(_prompts(printed)) == 8
    printed.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert len(_prompts(printed)) == 30
    printed.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert len(_prompts(printed)) == 8


def test_hostile_text_does_not_run(browser, content, tmp_path):
    hostile = Answer(
        policy="sft",
        text="<img src=x onerror=window.taken=1>",
        score=0.0,
        pieces=(("<script>window.taken=1</script>", 2.0),),
    )
    pair = PairedResponses(
        prompt=(Turn(role="user", text="<script>window.taken=1</script>"),), answers=(hostile,)
    )
    page, _ = _open(browser, render(content.model_copy(update={"responses": (pair,)})), tmp_path)
    assert page.evaluate("window.taken") is None
    # Even markup that got in by another way may not run.
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.taken=1\">')")
    page.wait_for_timeout(200)
    assert page.evaluate("window.taken") is None
