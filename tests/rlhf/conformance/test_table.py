"""The table of the document: who passes, who fails, and who has nothing of the kind."""

from rlhf.conformance.items import TITLES
from rlhf.conformance.table import BEGIN, END, by_trainer, cell, rows, written_into

RESULT = {
    "backend": "X",
    "date": "2026-11-24",
    "versions": {"x": "1.0"},
    "outcomes": [
        {"items": [1], "check": "a", "trainer": "reward", "outcome": "pass"},
        {"items": [1, 2], "check": "b", "trainer": "reward", "outcome": "fail"},
        {"items": [1], "check": "b", "trainer": "dpo", "outcome": "pass"},
        {"items": [3], "check": "c", "trainer": "dpo", "outcome": "not offered"},
    ],
}


def test_one_failed_check_is_enough():
    assert by_trainer(RESULT, 1) == {"reward": "fail", "dpo": "pass"}
    assert cell(RESULT, 1) == "**[fail](#item-1)**: reward · pass: dpo"
    assert cell(RESULT, 3) == cell(RESULT, 4) == "not offered"


def test_every_item_has_a_row():
    lines = list(rows([RESULT]))
    assert [line.split(" | ")[0] for line in lines[2 : 2 + len(TITLES)]] == [
        f"| {number}" for number in TITLES
    ]
    assert lines[-1] == "- X, 2026-11-24: x 1.0; of 4 checks: 1 fail, 2 pass, 1 not offered."


def test_only_what_is_between_the_marks_is_rewritten():
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    found = written_into(document, [RESULT])
    assert found.startswith(f"before\n{BEGIN}\n")
    assert found.endswith(f"{END}\nafter\n")
    assert "old" not in found
    assert written_into(found, [RESULT]) == found
