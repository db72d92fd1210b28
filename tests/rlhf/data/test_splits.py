"""Prompts are split by cluster, and those for evaluation leave every table for training."""

import json

import polars as pl
import pytest

from rlhf.data.assemble import assemble
from rlhf.data.leakage import leaked
from rlhf.data.splits import prompt_id, split_by_prompt

WORDS = [
    "river",
    "bread",
    "tax",
    "violin",
    "garden",
    "winter",
    "ticket",
    "engine",
    "poem",
    "camera",
    "marathon",
    "harbour",
    "library",
    "volcano",
    "mirror",
]


def ask(number):
    return f"Tell me how the {WORDS[number % 15]} got into my {WORDS[(number * 4 + 1) % 15]} number {number} last week"


def table(texts, **columns):
    prompts = [[{"role": "user", "content": text}] for text in texts]
    return pl.DataFrame({"prompt_id": [prompt_id(p) for p in prompts], "prompt": prompts, **columns})


def test_near_copies_of_a_prompt_stay_on_its_side():
    texts = [
        text
        for i in range(60)
        for text in (ask(i), ask(i).upper() + "?", ask(i).replace("Tell", "tell") + " !!")
    ]
    train, held_out = split_by_prompt(table(texts), 0.2, seed=3)
    sides = [
        {prompt[0]["content"].lower().rstrip(" ?!") for prompt in part["prompt"].to_list()}
        for part in (train, held_out)
    ]
    assert not sides[0] & sides[1]
    assert train.height + held_out.height == 180
    assert 36 <= held_out.height <= 39  # whole clusters of three


def test_the_seed_decides_and_the_order_of_rows_does_not():
    frame = table([ask(i) for i in range(50)])
    first = split_by_prompt(frame, 0.2, seed=1)[1]["prompt_id"].sort()
    assert split_by_prompt(frame.reverse(), 0.2, seed=1)[1]["prompt_id"].sort().equals(first)
    assert not split_by_prompt(frame, 0.2, seed=2)[1]["prompt_id"].sort().equals(first)
    assert first.len() == 10


def test_a_single_prompt_stays_for_training():
    train, held_out = split_by_prompt(table([ask(1)] * 3), 0.5, seed=0)
    assert (train.height, held_out.height) == (3, 0)


@pytest.mark.parametrize("similar", [True, False])
def test_held_out_prompts_leave_every_table(similar):
    preferences = table([ask(i) for i in range(40)], chosen=["a"] * 40, rejected=["b"] * 40)
    demonstrations = table([ask(i).upper() for i in range(40)], response=["a"] * 40)
    held_out = table([ask(3), ask(5)])
    found, left = assemble(
        {"preferences": preferences, "demonstrations": demonstrations, "held_out": held_out},
        held_out_fraction=0.1, seed=0, similar=similar,
    )  # fmt: skip
    assert left["preferences"] == left["prompts"] == 2
    assert left["demonstrations"] == (2 if similar else 0)
    assert found["held_out"].height == 2
    assert found["preferences"].height == 38


def test_what_was_said_of_responses_to_held_out_prompts_is_not_trained_on():
    given = table([ask(number) for number in range(4)], response=["yes"] * 4)
    found, left = assemble(
        {"demonstrations": given, "feedback": given, "held_out": table([ask(1)])},
        held_out_fraction=0.1,
        seed=0,
    )
    assert found["feedback"]["prompt_id"].to_list() == [
        prompt_id([{"role": "user", "content": ask(number)}]) for number in (0, 2, 3)
    ]
    assert left["feedback"] == 1


def test_what_is_held_out_of_text_and_demonstrations_is_trained_on_by_nobody():
    texts = [f"document {i}" for i in range(200)] + ["document 7"] * 3
    demonstrations = table([ask(i) for i in range(40)], response=["a"] * 40)
    given = {"corpus": pl.DataFrame({"text": texts}), "demonstrations": demonstrations}
    found, _ = assemble({**given, "held_out": table([ask(3), ask(5)])}, held_out_fraction=0.1, seed=0)
    assert found["held_out_text"].height == 4  # 2 %
    assert not set(found["held_out_text"]["text"]) & set(found["corpus"]["text"])
    assert found["held_out_text"].height + found["corpus"]["text"].n_unique() == 200
    assert set(found["held_out_demonstrations"]["prompt_id"]) == set(found["held_out"]["prompt_id"])
    assert found["demonstrations"].height == 38


def test_tables_that_only_evaluation_reads_are_handed_on_as_they_are():
    texts = pl.DataFrame({"text": [f"document {i}" for i in range(200)]})
    given = {
        "corpus": texts,
        "held_out_text": texts.head(3),
        "red_team": table([ask(90)]),
        "benign": table([ask(91)]),
    }
    demonstrations = {"demonstrations": table([ask(i) for i in range(40)], response=["a"] * 40)}
    found, left = assemble({**given, **demonstrations}, held_out_fraction=0.1, seed=0)
    assert all(found[name].equals(frame) for name, frame in given.items())
    assert set(left) == {"demonstrations", "prompts"}


def test_leaks_are_found_up_to_case_and_small_changes():
    known = pl.Series([ask(1), ask(2)])
    asked = pl.Series(
        [ask(1).upper(), "Something else that nobody asked before", ask(2), ask(2), f"{ask(1)}."]
    )
    assert leaked(known, asked).to_list() == [True, False, True, True, True]


def test_rows_that_another_file_asks_go_to_quarantine(validated, tmp_path, places):
    (tmp_path / "train.jsonl").write_text(
        json.dumps({"prompt": ask(1), "chosen": "x", "rejected": "y"}) + "\n"
    )
    rows = [
        {"prompt": text, "chosen": f"yes {i}", "rejected": f"no {i}"}
        for i, text in enumerate((ask(0), ask(1).upper(), ask(2)))
    ]
    report = validated(rows, against=[str(tmp_path / "train.jsonl")])
    assert ("leakage", 1) in places(report)
    assert (report.kept, report.quarantined) == (2, 1)
    assert json.loads((tmp_path / "out" / "quarantine.jsonl").read_text())["kind"] == "leakage"
