"""Every layout that people have becomes the same canonical rows."""

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlhf.data.layouts_pairs import folded, same_folded

ASK, GOOD, BAD = "Where is the nearest bakery?", "On the corner of Mill Street.", "I do not care at all."


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


def part(text):
    return [{"type": "text", "value": text}]


HH = "\n\nHuman: {}\n\nAssistant: {}"
TREE = {
    "message_tree_id": "t1",
    "prompt": {"role": "prompter", "text": ASK, "replies": [
        {"role": "assistant", "text": BAD, "rank": 1, "replies": []},
        {"role": "assistant", "text": GOOD, "rank": 0, "replies": [{"role": "prompter", "text": "Thanks.", "replies": []}]},
    ]},
}  # fmt: skip
PAIRS = {
    "TRL standard": {"prompt": ASK, "chosen": GOOD, "rejected": BAD},
    "TRL conversational": {"prompt": [user(ASK)], "chosen": [assistant(GOOD)], "rejected": [assistant(BAD)]},
    "TRL implicit prompt": {"chosen": [user(ASK), assistant(GOOD)], "rejected": [user(ASK), assistant(BAD)]},
    "HH-RLHF transcripts": {"chosen": HH.format(ASK, GOOD), "rejected": HH.format(ASK, BAD)},
    "Alpaca pairs": {"instruction": ASK, "input": "", "output": "x", "chosen": GOOD, "rejected": BAD},
    "ShareGPT pairs": {"conversations": [human(ASK)], "chosen": gpt(GOOD), "rejected": gpt(BAD)},
    "ranked pair lists (output)": {"instruction": ASK, "input": "", "output": [GOOD, BAD], "history": []},
    "typed-content pairs": {
        "chosen_messages": [{"role": "user", "content": part(ASK)}, {"role": "assistant", "content": part(GOOD)}],
        "rejected_messages": [{"role": "user", "content": part(ASK)}, {"role": "assistant", "content": part(BAD)}],
    },
    "A/B labels (preference: 1 or 2)": {"instruction": ASK, "output_1": BAD, "output_2": GOOD, "preference": 2},
    "A/B labels (label: 0, 1 or a tie (2))": {"prompt": ASK, "response 1": GOOD, "response 2": BAD, "label": 0},
    "pairs of A/B labels of three raters": {
        "instruction": ASK, "input": "", "response1": GOOD, "response2": BAD,
        "annotator1": 1, "annotator2": 1, "annotator3": 0,
    },
    "pairs of ranked responses": {"prompt": ASK, "responses": [
        {"content": BAD, "rank": 2}, {"content": GOOD, "rank": 1},
    ]},
    "pairs of responses with scores": {"prompt": ASK, "responses": [BAD, GOOD], "scores": [0.1, 0.9]},
    "pairs of OpenAssistant trees": TREE,
    "pairs of solutions marked right or wrong": {
        "question": ASK, "ground_truth": "x",
        "6b_finetuning": {"is_correct": False, "solution": BAD}, "175b": {"is_correct": True, "solution": GOOD},
    },
    "questions with two answers": {"question": ASK, "chosen": GOOD, "rejected": BAD},
    "canonical preferences": {"prompt": [user(ASK)], "chosen": GOOD, "rejected": BAD, "margin": None, "weight": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("layout", PAIRS)
def test_every_layout_of_pairs_gives_the_same_row(layout, validated, tmp_path):
    report = validated([PAIRS[layout]])
    assert (report.format, report.kept) == (f"{layout}, JSON Lines", 1), report.findings
    row = pl.read_parquet(tmp_path / "out" / "preferences.parquet").row(0, named=True)
    assert (row["prompt"], row["chosen"], row["rejected"]) == ([user(ASK)], GOOD, BAD)


DEMONSTRATIONS = {
    "messages": {"messages": [user(ASK), assistant(GOOD)]},
    "ShareGPT": {"conversations": [human(ASK), gpt(GOOD)]},
    "prompt and completion": {"prompt": ASK, "completion": GOOD},
    "TRL prompt and completion, conversational": {"prompt": [user(ASK)], "completion": [assistant(GOOD)]},
    "question and answer": {"question": ASK, "answer": GOOD},
    "instruction and output": {"instruction": ASK, "input": "<noinput>", "output": GOOD},
    "self-instruct tasks": {"instruction": ASK, "instances": [{"input": "", "output": GOOD}]},
    "OpenAssistant trees": TREE,
}


@pytest.mark.parametrize("layout", DEMONSTRATIONS)
def test_every_layout_of_demonstrations_gives_the_same_row(layout, validated, tmp_path):
    report = validated([DEMONSTRATIONS[layout]], kind="demonstrations")
    assert (report.format, report.kept) == (f"{layout}, JSON Lines", 1), report.findings
    row = pl.read_parquet(tmp_path / "out" / "demonstrations.parquet").row(0, named=True)
    assert (row["prompt"], row["response"]) == ([user(ASK)], GOOD)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASK}, {"prompt": [user(ASK)]}, {"question": ASK}, {"instruction": ASK, "input": ""},
        {"turns": [ASK, "And then?"]}, {"Behavior": ASK, "ContextString": ""}, {"goal": ASK, "target": "Sure"},
        {"messages": [user(ASK), assistant(GOOD)]}, TREE, {"chosen": HH.format(ASK, GOOD), "rejected": HH.format(ASK, BAD)},
    ],
    ids=lambda row: "+".join(row),
)  # fmt: skip
def test_every_layout_of_prompts_gives_the_same_row(row, validated, tmp_path):
    assert validated([row], kind="prompts").kept == 1
    assert pl.read_parquet(tmp_path / "out" / "prompts.parquet")["prompt"].to_list() == [[user(ASK)]]


def test_feedback_keeps_every_rater(validated, tmp_path):
    report = validated([{"prompt": ASK, "response": GOOD, "gpt4_score": [4, 5, 4]}], kind="feedback")
    table = pl.read_parquet(tmp_path / "out" / "feedback.parquet")
    assert report.kept == 1
    assert table["rater"].to_list() == ["judge_1", "judge_2", "judge_3"]
    assert table["score"].to_list() == [4.0, 5.0, 4.0]


@pytest.mark.parametrize("labels", [(True, False), ("Safe", "Unsafe"), (" yes", " no"), (1, 0)])
def test_labels_of_feedback_may_be_spelt_in_many_ways(labels, validated, tmp_path):
    rows = [
        {"prompt": ASK, "completion": text, "label": label}
        for text, label in zip((GOOD, BAD), labels, strict=True)
    ]
    assert validated(rows, kind="feedback").kept == 2
    assert pl.read_parquet(tmp_path / "out" / "feedback.parquet")["label"].to_list() == [True, False]


def test_a_system_turn_tools_and_calls_stay_in_the_prompt(validated, tmp_path):
    row = {"messages": [
        {"role": "system", "content": "Be brief."}, user(ASK),
        {"role": "assistant", "content": None, "tool_calls": [{"name": "maps", "arguments": "{}"}]},
        {"role": "tool", "content": "Mill Street"}, assistant(GOOD),
    ]}  # fmt: skip
    assert validated([row], kind="demonstrations").kept == 1
    turns = pl.read_parquet(tmp_path / "out" / "demonstrations.parquet")["prompt"][0].to_list()
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "tool"]
    assert turns[2]["content"] == '[{"name":"maps","arguments":"{}"}]'


def test_ties_are_left_out_of_pairs_and_kept_in_rankings(validated, tmp_path):
    rows = [
        {"prompt": ASK, "completion_a": GOOD, "completion_b": BAD, "preference": label, "evaluator": "r1"}
        for label in ("a-is-better", "tie", "b-is-slightly-better")
    ]
    rows[2]["completion_a"], rows[2]["completion_b"] = BAD, "You could ask at the town hall."
    report = validated(rows)
    assert (report.kept, report.reasons, report.rows) == (2, {"tie": 1}, 3)
    report = validated(rows, kind="rankings")
    assert report.kept == 3
    assert pl.read_parquet(tmp_path / "out" / "rankings.parquet")["ranks"].to_list() == [
        [1, 2],
        [1, 1],
        [2, 1],
    ]


def test_soft_labels_become_margins(validated, tmp_path):
    rows = [{"instruction": ASK, "output_1": GOOD, "output_2": BAD, "preference": 1.25}]
    assert validated(rows).kept == 1
    # A probability of 0.75 for the first, 0.25 for the second.
    assert pl.read_parquet(tmp_path / "out" / "preferences.parquet")["margin"].to_list() == [0.5]


def test_a_mapping_reaches_columns_of_any_name_and_depth(validated, tmp_path):
    rows = [{"data": {"ask": ASK}, "better": GOOD, "chosen": "unused", "bad one": BAD}]
    columns = {"prompt": "data.ask", "chosen": "better", "rejected": "bad one"}
    assert validated(rows, columns=columns).kept == 1
    row = pl.read_parquet(tmp_path / "out" / "preferences.parquet").row(0, named=True)
    assert (row["prompt"], row["chosen"], row["rejected"]) == ([user(ASK)], GOOD, BAD)


def test_the_message_about_a_missing_column_names_the_likely_one(validated):
    report = validated([{"question": ASK, "good": GOOD, "bad": BAD}] * 3)
    messages = {finding.field: finding.message for finding in report.findings}
    assert set(messages) == {"prompt", "chosen", "rejected"}
    assert "columns: {chosen: good}" in messages["chosen"]


@given(
    st.lists(
        st.sampled_from(["Yes", " no", "\u00df", "SS", "\u0130", "_", "-", "\n", " ", "\u0301", "9"]),
        max_size=60,
    ),
    st.sampled_from([str.upper, str.lower, str.swapcase, lambda text: text + "!", lambda text: text + "x"]),
)
@example(["Yes"] + [" "] * 40 + ["no"], str.upper)
def test_the_first_words_never_hide_that_two_texts_are_the_same(words, change):
    left = "".join(words)
    right = change(left)
    alike = bool(folded(left)) and folded(left) == folded(right)
    assert not same_folded(left, right) or alike
    # Only a first letter with several spellings may be taken for another one.
    assert same_folded(left, right) == alike or left[:1].lower() != right[:1].lower()
