"""A real MLflow server holds the pairs, reviewers answer there, and their verdicts come back."""

from pathlib import Path

import mlflow
import pytest
from mlflow.entities import AssessmentSource, AssessmentSourceType
from mlflow.genai.review_queues import get_review_queue, list_review_queue_items, set_review_queue_item_status

from rlhf.adapters.reviews import QUESTION, Reviews
from schemas.errors import NotFound
from schemas.reviews import ReviewPair, Verdict
from schemas.settings import Settings

pytestmark = [
    pytest.mark.integration,
    # MLflow warns of its own code when it starts the first span; as an error, that would swallow the span.
    pytest.mark.filterwarnings("ignore:.*AnyType"),
]

HOSTILE = "<script>alert(1)</script> ' \" ünïcode \U0001f600"


def pair(number: int) -> ReviewPair:
    return ReviewPair(
        key=f"{number}:1:0",
        prompt=[{"role": "user", "content": f"Question {number}? {HOSTILE}"}],
        a=f"Yes {number}. {HOSTILE}",
        b=f"No {number}.",
    )


def answer(trace_id: str, choice: str, reviewer: str, kind: str = AssessmentSourceType.HUMAN) -> None:
    mlflow.log_feedback(
        trace_id=trace_id,
        name=QUESTION,
        value=choice,
        source=AssessmentSource(source_type=kind, source_id=reviewer),
    )


def test_pairs_go_into_a_queue_and_verdicts_come_back(server: str, tmp_path: Path):
    reviews = Reviews(Settings(home=tmp_path / "home", tracking_uri=server), "labelling")
    with pytest.raises(NotFound, match="batch"):
        reviews.verdicts("batch", "people-1")
    assert reviews.publish("batch", "people-1", [pair(0), pair(1)], ["ann"], "Right first.") == 2
    # The same again, with more of both: nothing is there twice.
    assert reviews.publish("batch", "people-1", [pair(n) for n in range(4)], ["bob"], "Right first.") == 2
    assert reviews.publish("other", "people-2", [pair(0)], [], "Right first.") == 1

    experiment = mlflow.get_experiment_by_name("labelling").experiment_id
    queue = get_review_queue(name="batch", experiment_id=experiment)
    assert queue.users == ["ann", "bob"]
    items = [item.item_id for item in list_review_queue_items(queue.queue_id)]
    shown = {}
    for trace_id in items:
        trace = mlflow.get_trace(trace_id)
        shown[trace.info.tags["rlhf.pair"]] = trace_id
        (span,) = trace.data.spans
        number = trace.info.tags["rlhf.pair"][0]
        assert span.inputs == {"messages": pair(int(number)).prompt}
        assert span.outputs == {"A": pair(int(number)).a, "B": pair(int(number)).b}
    assert sorted(shown) == [f"{n}:1:0" for n in range(4)]

    assert reviews.verdicts("batch", "people-1") == []
    answer(shown["0:1:0"], "B", "ann")
    answer(shown["0:1:0"], "A", "ann")  # the last word counts
    answer(shown["0:1:0"], "tie", "bob")
    answer(shown["1:1:0"], "B", "ann")
    answer(shown["1:1:0"], "A", "a judge", AssessmentSourceType.LLM_JUDGE)  # no person
    answer(shown["2:1:0"], "A", "ann")  # not marked as complete
    for key in ("0:1:0", "1:1:0", "3:1:0"):
        set_review_queue_item_status(
            queue.queue_id, item_id=shown[key], status="complete", completed_by="ann"
        )
    found = sorted(reviews.verdicts("batch", "people-1"), key=lambda one: (one.key, one.reviewer))
    assert found == [
        Verdict(key="0:1:0", reviewer="ann", choice="A"),
        Verdict(key="0:1:0", reviewer="bob", choice="tie"),
        Verdict(key="1:1:0", reviewer="ann", choice="B"),
    ]
    assert reviews.verdicts("other", "people-2") == []
