import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from rlhf.evaluation.judges import verdicts
from rlhf.evaluation.llm_judge import LLMJudge, verdict_in
from schemas.config.evaluation import LLMJudgeConfig
from schemas.errors import ConfigError, JudgeUnreachable

pytestmark = pytest.mark.integration


class Endpoint:
    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log
        self.slept: list[float] = []

    def judge(self, model: str, key: str | None = "secret-key", **settings: object) -> LLMJudge:
        config = LLMJudgeConfig(model=model, **settings)
        return LLMJudge(self.url, key, config, sleep=self.slept.append)

    def requests(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    server = Path(__file__).with_name("chat_server.py")
    log = tmp_path / "requests.jsonl"
    with subprocess.Popen([sys.executable, server, log], stdout=subprocess.PIPE, text=True) as process:
        yield Endpoint(f"http://127.0.0.1:{process.stdout.readline().strip()}/v1", log)
        process.terminate()


def samples(responses: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "prompt_id": [f"p{number}" for number in range(len(responses))],
            "prompt": [
                [{"role": "user", "content": f"question {number}"}] for number in range(len(responses))
            ],
            "response": responses,
            "finished": [True] * len(responses),
        }
    )


OURS, THEIRS = samples(["longer", "b", "same", "four"]), samples(["long", "bb", "same", "five"])


def test_each_pair_is_asked_in_both_orders_and_averaged(endpoint):
    judge = endpoint.judge("length")
    assert verdicts(judge, OURS, THEIRS)["outcome"].to_list() == [1.0, 0.0, 0.5, 0.5]
    requests = endpoint.requests()
    assert {request["path"] for request in requests} == {"/v1/chat/completions"}
    assert {request["key"] for request in requests} == {"Bearer secret-key"}
    asked = [json.loads(request["body"]["messages"][1]["content"]) for request in requests]
    orders = {(one["response_A"], one["response_B"]) for one in asked}
    # The pair of equal responses is a tie that nobody needs to be asked about.
    assert orders == {
        ("longer", "long"),
        ("long", "longer"),
        ("b", "bb"),
        ("bb", "b"),
        ("four", "five"),
        ("five", "four"),
    }
    assert all(request["body"]["response_format"] == {"type": "json_object"} for request in requests)
    summary = judge.summary()
    assert (summary.calls, summary.retries, summary.unjudged) == (6, 0, 0)
    assert (summary.first_preferred, summary.consistent, summary.cost) == (0.5, 1.0, None)


def test_a_judge_that_likes_what_comes_first_decides_nothing(endpoint):
    judge = endpoint.judge("first", key=None)
    assert verdicts(judge, OURS, THEIRS)["outcome"].to_list() == [0.5] * 4
    assert (judge.summary().first_preferred, judge.summary().consistent) == (1.0, 0.0)
    assert {request["key"] for request in endpoint.requests()} == {None}


def test_busy_lost_and_babbling_answers_are_asked_again_with_growing_waits(endpoint):
    judge = endpoint.judge("flaky", backoff_seconds=0.5, concurrency=1)
    assert verdicts(judge, OURS.head(1), THEIRS.head(1))["outcome"].to_list() == [1.0]
    summary = judge.summary()
    assert (summary.calls, summary.retries) == (8, 6)
    busy, lost, babbling = endpoint.slept[:3]
    assert busy == 7.0  # the endpoint said how long
    assert 0.5 <= lost <= 1.0  # 0.5 * 2 * (0.5 to 1)
    assert 1.0 <= babbling <= 2.0


def test_tokens_are_counted_and_priced(endpoint):
    judge = endpoint.judge(
        "fenced", price_per_million_prompt_tokens=3.0, price_per_million_completion_tokens=20.0
    )
    assert verdicts(judge, OURS, THEIRS)["outcome"].to_list() == [1.0, 0.0, 0.5, 0.5]
    summary = judge.summary()
    assert (summary.prompt_tokens, summary.completion_tokens) == (600, 60)
    assert summary.cost == pytest.approx((600 * 3 + 60 * 20) / 1e6)


def test_only_so_many_pairs_are_paid_for_and_the_rest_does_not_count(endpoint):
    found = verdicts(endpoint.judge("length", max_pairs=1), OURS, THEIRS)
    assert found["prompt_id"].to_list() == ["p0", "p2"]
    assert len(endpoint.requests()) == 2


@pytest.mark.parametrize("model", ["down", "babbling"])
def test_an_endpoint_that_gives_no_verdicts_stops_the_stage(endpoint, model):
    with pytest.raises(JudgeUnreachable, match=r"no verdict on 3 of 3 pairs in 2 attempts each"):
        verdicts(endpoint.judge(model, attempts=2), OURS, THEIRS)
    assert len(endpoint.requests()) == 12


def test_a_refused_key_is_an_error_at_once_that_does_not_show_it(endpoint):
    with pytest.raises(ConfigError, match="answered 401") as raised:
        verdicts(endpoint.judge("locked", concurrency=1), OURS.head(1), THEIRS.head(1))
    assert "RLHF_JUDGE_KEY" in str(raised.value)
    assert "secret-key" not in str(raised.value)


def test_nobody_at_the_address_is_an_error_of_ours(endpoint):
    judge = LLMJudge(
        "http://127.0.0.1:9/v1", None, LLMJudgeConfig(model="x", attempts=2), sleep=lambda _: None
    )
    with pytest.raises(JudgeUnreachable, match="3 of 3"):
        verdicts(judge, OURS, THEIRS)


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        ('{"verdict": "A"}', 1.0),
        ('well: {"reason": "it {braces}", "verdict": "B"} so', 0.0),
        ('{"verdict": "tie"}', 0.5),
        ('{"verdict": "C"}', None),
        ('{"verdict": ["A"]}', None),
        ('["verdict"]', None),
        ("{broken", None),
        (None, None),
    ],
)
def test_verdicts_are_read_from_the_json_object(content, verdict):
    assert verdict_in(content) == verdict
