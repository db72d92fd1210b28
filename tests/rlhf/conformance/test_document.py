"""docs/conformance.md: what it says of TRL is so, and every failure in its table is reproduced."""

import re
from pathlib import Path

import pytest

from rlhf.conformance.items import TITLES

DOCUMENT = (Path(__file__).parents[3] / "docs" / "conformance.md").read_text(encoding="utf-8")
HEAD, *SECTIONS = DOCUMENT.split("### Item ")
BLOCK = re.compile(r"```python\n(.*?)```", re.S)
REPRODUCED = {int(section.split("\n", 1)[0]): BLOCK.findall(section)[0] for section in SECTIONS}


def test_every_failure_in_the_table_is_reproduced():
    failed = {int(number) for number in re.findall(r"\[fail\]\(#item-(\d+)\)", HEAD)}
    assert failed == set(REPRODUCED)
    assert failed <= set(TITLES)


def test_ours_passes_everything_that_it_offers():
    table = [line.split(" | ") for line in HEAD.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(table) == len(TITLES)
    assert all(ours.startswith(("pass:", "not offered")) and "fail" not in ours for _, _, ours, _ in table)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", REPRODUCED)
def test_a_failure_is_as_it_is_told(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "1")  # TRL's trainers then send no message to their makers
    names: dict[str, object] = {}
    exec(BLOCK.findall(HEAD)[0], names)  # noqa: S102  # the document's own code
    exec(REPRODUCED[number], names)  # noqa: S102
