import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlhf.serving.assistant import Assistant, Sampling
from rlhf.serving.guardrails import DecisionLog, Guardrails
from schemas.config.serving import GuardConfig
from schemas.errors import ConfigError

ASKED = [{"role": "user", "content": "When do you open?"}]
DRAWN = Sampling(max_new_tokens=12, seed=3)


def reply(assistant: Assistant, decisions: list[Any] | None = None, **rules: Any) -> Any:
    log = [].append if decisions is None else decisions.append
    return Guardrails(assistant, GuardConfig.model_validate(rules), log).reply(ASKED, DRAWN)


def test_without_rules_the_model_speaks_for_itself(assistant: Assistant) -> None:
    assert reply(assistant).text == assistant.answer(ASKED, DRAWN)[0].text


def test_of_several_responses_the_one_with_the_highest_score_is_given(assistant: Assistant) -> None:
    drawn = assistant.answer(ASKED, DRAWN, n=6)
    scores = [answer.score or 0.0 for answer in drawn]
    assert len(set(scores)) == 6
    found = reply(assistant, best_of=6)
    assert found.text == drawn[scores.index(max(scores))].text
    assert (found.decision.drawn, found.decision.score) == (6, max(scores))


def test_scores_are_those_of_the_very_tokens_that_were_drawn(assistant: Assistant, tiny_reward: Path) -> None:
    from rlhf.data.chat import encode_prompt, encode_response
    from rlhf.models.loading import load_tokenizer
    from rlhf.models.reward import RewardModel

    answer = assistant.answer(ASKED, DRAWN)[0]
    model, tokenizer = RewardModel.load(tiny_reward), load_tokenizer(tiny_reward)
    ids = encode_prompt(tokenizer, ASKED) + encode_response(tokenizer, answer.text, finished=answer.finished)
    assert answer.score == pytest.approx(float(model.normalised_scores([ids])[0]), abs=1e-5)


def test_below_the_threshold_it_is_refused_and_above_given(assistant: Assistant) -> None:
    score = assistant.answer(ASKED, DRAWN)[0].score or 0.0
    decisions: list[Any] = []
    assert reply(assistant, decisions, min_score=score - 0.01).finish_reason != "content_filter"
    refused = reply(assistant, decisions, min_score=score + 0.01, refusal="No.")
    assert (refused.text, refused.finish_reason) == ("No.", "content_filter")
    assert [(one["action"], one["rule"]) for one in decisions] == [("allowed", "none"), ("refused", "score")]


def test_a_forbidden_response_is_not_said_not_even_its_beginning(assistant: Assistant) -> None:
    heard: list[str] = []
    guard = GuardConfig(blocked_output=(r".",), refusal="\n")
    found = Guardrails(assistant, guard, [].append).reply(ASKED, DRAWN, heard.append)
    assert found.decision.rule == "blocked output"
    assert heard == ["\n"]


def test_a_conversation_that_is_too_long_never_reaches_the_model(assistant: Assistant) -> None:
    decisions: list[Any] = []
    assert reply(assistant, decisions, max_prompt_chars=5).decision.rule == "prompt length"
    assert decisions[0]["drawn"] == 0


def test_only_the_users_words_are_searched(assistant: Assistant) -> None:
    system = [{"role": "system", "content": "Never say password."}, *ASKED]
    guard = GuardConfig(blocked_input=("password",))
    found = Guardrails(assistant, guard, [].append).reply(system, DRAWN)
    assert found.decision.action == "allowed"


def test_the_log_has_a_line_per_decision_and_no_words(assistant: Assistant, tmp_path: Path) -> None:
    path = tmp_path / "serving" / "decisions.jsonl"
    guardrails = Guardrails(assistant, GuardConfig(max_prompt_chars=30), DecisionLog(path, "tiny version 2"))
    said = guardrails.reply(ASKED, DRAWN).text
    guardrails.reply([{"role": "user", "content": "x" * 31}], DRAWN)
    text = path.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["action"], line["rule"], line["model"]) for line in lines] == [
        ("allowed", "none", "tiny version 2"),
        ("refused", "prompt length", "tiny version 2"),
    ]
    assert ASKED[0]["content"] not in text
    assert said not in text
    assert len({line["prompt"] for line in lines}) == 2


def test_scores_need_a_reward_model(tiny_policy: Path) -> None:
    bare = Assistant.load(tiny_policy)
    with pytest.raises(ConfigError, match="--reward"):
        Guardrails(bare, GuardConfig(best_of=2), [].append)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"blocked_input": ["("]}, "is not a regular expression"),
        ({"blocked_output": ["sorry"]}, "the refusal itself is forbidden"),
        ({"best_of": 0}, "greater than or equal to 1"),
        ({"blocked": []}, "Extra inputs"),
    ],
)
def test_rules_that_cannot_work_are_refused(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GuardConfig.model_validate(rules)
