"""The server over real HTTP, with the client that OpenAI ships."""

import threading
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from rlhf.feedback import thumbs
from rlhf.feedback.database import connect
from rlhf.serving.api import CONSENT, MAX_BODY, MAX_WAITING
from rlhf.serving.assistant import Assistant, Sampling
from schemas.config.serving import GuardConfig

ASKED: list[Any] = [{"role": "user", "content": "When do you open?"}]


def client(address: str, key: str = "unused") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=30)


def ask(address: str, key: str = "unused", **options: Any) -> Any:
    given = {"model": "tiny", "messages": ASKED, "max_tokens": 12, "seed": 7, **options}
    return client(address, key).chat.completions.create(**given)


def test_a_completion_is_what_the_model_says_with_that_seed(serve: Any, assistant: Assistant) -> None:
    expected = assistant.answer(ASKED, Sampling(max_new_tokens=12, seed=7))[0]
    found = ask(serve())
    choice = found.choices[0]
    assert choice.message.content == expected.text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == ("stop" if expected.finished else "length")
    assert found.usage.completion_tokens == expected.tokens
    assert found.usage.prompt_tokens == expected.prompt_tokens > 0
    assert found.model == "tiny"


def test_a_stream_says_the_same_piece_by_piece(serve: Any) -> None:
    address = serve()
    whole = ask(address, max_tokens=40)
    parts = list(ask(address, max_tokens=40, stream=True, stream_options={"include_usage": True}))
    said = [part.choices[0].delta.content or "" for part in parts if part.choices]
    assert "".join(said) == whole.choices[0].message.content
    assert sum(bool(piece) for piece in said) > 3
    assert [part.choices[0].finish_reason for part in parts if part.choices][-1] == whole.choices[
        0
    ].finish_reason
    assert parts[-1].usage == whole.usage


def test_several_choices_differ_and_a_missing_seed_is_drawn(serve: Any) -> None:
    address = serve()
    found = ask(address, n=3)
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in found.choices}) > 1
    texts = {ask(address, seed=None, max_tokens=20).choices[0].message.content for _ in range(4)}
    assert len(texts) > 1


def test_temperature_zero_is_greedy(serve: Any) -> None:
    address = serve()
    texts = {ask(address, temperature=0, seed=seed).choices[0].message.content for seed in range(4)}
    assert len(texts) == 1


def test_text_parts_and_the_developer_role_are_understood(serve: Any) -> None:
    address = serve()
    plain = [{"role": "system", "content": "Be kind."}, *ASKED]
    parts = [
        {
            "role": "developer",
            "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}],
        },
        *ASKED,
    ]
    first, second = (ask(address, messages=messages) for messages in (plain, parts))
    assert first.choices[0].message.content == second.choices[0].message.content


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "this is 'tiny'"),
        ({"top_p": 0.9}, openai.BadRequestError, "top_p is not served"),
        ({"tools": []}, openai.BadRequestError, "tools is not served here"),
        ({"logprobs": True}, openai.BadRequestError, "logprobs is not served here"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "At nine."}]}, openai.BadRequestError, "user's"),
        ({"messages": [{"role": "user", "content": "open? " * 200}]}, openai.BadRequestError, "tokens"),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused_in_the_clients_own_terms(
    serve: Any, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        ask(serve(), **options)


def test_a_stream_that_cannot_be_answered_says_why(serve: Any) -> None:
    with pytest.raises(openai.APIError, match="tokens"):
        list(ask(serve(), messages=[{"role": "user", "content": "open? " * 200}], stream=True))


def test_models_are_listed(serve: Any) -> None:
    address = serve()
    assert [model.id for model in client(address).models.list()] == ["tiny"]
    assert httpx.get(f"{address}/health").json() == {"status": "ok", "model": "tiny"}


def test_with_a_token_only_its_bearer_is_answered(serve: Any) -> None:
    address = serve(token="a-long-enough-token")
    assert ask(address, key="a-long-enough-token").choices
    with pytest.raises(openai.AuthenticationError):
        ask(address, key="another")
    assert httpx.get(f"{address}/v1/models").status_code == 401
    assert httpx.get(f"{address}/health").status_code == 200


def test_a_foreign_name_for_this_machine_is_refused(serve: Any) -> None:
    answer = httpx.get(f"{serve()}/v1/models", headers={"Host": "evil.example"})
    assert answer.status_code == 400


def test_a_request_that_is_too_large_or_hides_its_length_is_not_read(serve: Any) -> None:
    address = serve()
    large = httpx.post(f"{address}/v1/chat/completions", content=b"x" * (MAX_BODY + 1))
    assert large.status_code == 413
    hidden = httpx.post(f"{address}/v1/chat/completions", content=iter([b"{}"]))
    assert hidden.status_code == 411


def test_clients_at_once_get_the_answers_that_each_would_get_alone(serve: Any) -> None:
    address = serve()
    alone = {seed: ask(address, seed=seed).choices[0].message.content for seed in range(8)}
    found: dict[int, str] = {}

    def one(seed: int) -> None:
        found[seed] = ask(address, seed=seed).choices[0].message.content

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == alone


def test_clients_that_hang_up_leave_their_places(serve: Any) -> None:
    address = serve()
    for _ in range(MAX_WAITING + 4):
        stream = ask(address, stream=True, max_tokens=48)
        next(iter(stream))
        stream.close()
    assert ask(address).choices


def test_what_a_rule_forbids_is_refused_in_streams_too(serve: Any) -> None:
    decisions: list[Any] = []
    guard = GuardConfig(blocked_input=(r"password",), refusal="Not that.")
    address = serve(guard, decisions=decisions)
    forbidden = [{"role": "user", "content": "Tell me the PASSWORD"}]
    found = ask(address, messages=forbidden)
    assert found.choices[0].message.content == "Not that."
    assert found.choices[0].finish_reason == "content_filter"
    parts = list(ask(address, messages=forbidden, stream=True))
    assert "".join(part.choices[0].delta.content or "" for part in parts) == "Not that."
    assert parts[-1].choices[0].finish_reason == "content_filter"
    assert [(one["action"], one["rule"]) for one in decisions] == [("refused", "blocked input")] * 2


@pytest.fixture
def judged(serve: Any, tmp_path: Path) -> tuple[str, Any]:
    database = connect(f"sqlite:///{tmp_path}/feedback.db")
    return serve(feedback=database), database


def judge(address: str, **given: Any) -> httpx.Response:
    return httpx.post(f"{address}/v1/feedback", json=given)


def test_a_thumb_with_consent_is_kept_once_with_the_words_it_judges(judged: tuple[str, Any]) -> None:
    address, database = judged
    assert httpx.get(f"{address}/v1/feedback").json() == {"consent": CONSENT}
    found = ask(address, n=2)
    given = {"completion_id": found.id, "choice": 1, "rating": "down", "consent": True, "rater": "ann"}
    assert judge(address, **given).json() == {"kept": True}
    assert judge(address, **given).json() == {"kept": False}
    row = thumbs.table(database).row(0, named=True)
    assert thumbs.table(database).height == 1
    assert (row["prompt"], row["response"]) == (ASKED, found.choices[1].message.content)
    assert (row["label"], row["rater"]) == (False, "ann")


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"consent": False}, 400), ({"consent": None}, 400), ({"completion_id": "chatcmpl-x"}, 404), ({"choice": 5}, 404)],
)  # fmt: skip
def test_without_consent_or_an_answer_nothing_is_kept(
    judged: tuple[str, Any], changes: dict[str, Any], status: int
) -> None:
    address, database = judged
    found = ask(address)
    given = {"completion_id": found.id, "rating": "up", "consent": True, **changes}
    assert judge(address, **given).status_code == status
    assert thumbs.table(database).is_empty()


def test_feedback_is_not_there_unless_asked_for(serve: Any) -> None:
    assert httpx.get(f"{serve()}/v1/feedback").status_code == 404
