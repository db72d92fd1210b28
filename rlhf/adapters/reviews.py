"""MLflow's own review queues (experimental since 3.14): pairs go in as traces, verdicts come back as assessments."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, get_args

from rlhf.adapters.mlflow_errors import ask
from rlhf.adapters.tracking import connect
from schemas.errors import NotFound, TrackingUnreachable
from schemas.reviews import Choice, ReviewPair, Verdict
from schemas.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Trace

QUESTION = "preference"
"""The label schema that a reviewer answers, and the name of the assessment that this makes."""
_BATCH, _PAIR = "rlhf.batch", "rlhf.pair"
_PAGE = 100


class Reviews:
    """The review queues of one experiment; MLflow's functions for them know the tracking server by a global."""

    def __init__(self, settings: Settings, experiment: str) -> None:
        self._experiment_id = connect(settings, experiment).experiment_id
        import mlflow

        mlflow.set_tracking_uri(settings.tracking_uri)
        self._client: MlflowClient = mlflow.MlflowClient()

    def publish(
        self, queue: str, key: str, pairs: Sequence[ReviewPair], reviewers: Sequence[str], guidelines: str
    ) -> int:
        """Put a batch's pairs that are not there yet into a queue; return how many that were. `key` is the batch's.

        `reviewers` are added to those that the queue has; without any, everybody who sees the experiment may answer.
        """
        from mlflow import flush_trace_async_logging
        from mlflow.genai.review_queues import add_items_to_review_queue

        there = {trace.info.tags[_PAIR]: trace.info.trace_id for trace in self._traces(key)}
        new = [pair for pair in pairs if pair.key not in there]
        made = [self._trace(key, pair) for pair in new]
        ask(flush_trace_async_logging)
        queue_id = self._queue(queue, reviewers, guidelines)
        # Those of a publication that was interrupted may be traces already, and not yet items.
        items = [*there.values(), *made]
        for start in range(0, len(items), _PAGE):
            ask(add_items_to_review_queue, queue_id, item_ids=items[start : start + _PAGE])
        return len(new)

    def verdicts(self, queue: str, key: str) -> list[Verdict]:
        """Return each reviewer's last word on every pair that somebody has marked as complete."""
        from mlflow.genai.review_queues import get_review_queue

        found = ask(get_review_queue, name=queue, experiment_id=self._experiment_id)
        complete = set(self._complete(found.queue_id))
        return [
            verdict
            for trace in self._traces(key)
            if trace.info.trace_id in complete
            for verdict in _verdicts(trace)
        ]

    def _trace(self, key: str, pair: ReviewPair) -> str:
        from mlflow.entities.span import NO_OP_SPAN_TRACE_ID

        span = ask(
            self._client.start_trace,
            "comparison",
            inputs={"messages": pair.prompt},
            tags={_BATCH: key, _PAIR: pair.key},
            experiment_id=self._experiment_id,
        )
        if span.trace_id == NO_OP_SPAN_TRACE_ID:  # it logs why, and raises nothing
            raise TrackingUnreachable(
                "MLflow did not take a comparison, and its warning above says why; mend that, and publish again."
            )
        ask(self._client.end_trace, span.trace_id, outputs={"A": pair.a, "B": pair.b})
        return str(span.trace_id)

    def _traces(self, key: str) -> "Iterator[Trace]":
        token: str | None = None
        while True:
            page = ask(
                self._client.search_traces,
                locations=[self._experiment_id],
                filter_string=f"tags.`{_BATCH}` = '{key}'",
                max_results=_PAGE,
                page_token=token,
                include_spans=False,
            )
            yield from page
            if not (token := page.token):
                return

    def _complete(self, queue_id: str) -> Iterator[str]:
        from mlflow.genai.review_queues import list_review_queue_items

        token: str | None = None
        while True:
            page = ask(
                list_review_queue_items, queue_id, status="complete", max_results=_PAGE, page_token=token
            )
            yield from (item.item_id for item in page)
            if not (token := page.token):
                return

    def _queue(self, name: str, reviewers: Iterable[str], guidelines: str) -> str:
        """Return the id of the queue of this name, which is made if it is not there; the reviewers are added to it."""
        from mlflow.genai.review_queues import create_review_queue, get_review_queue, update_review_queue

        try:
            found = ask(get_review_queue, name=name, experiment_id=self._experiment_id)
        except NotFound:
            found = ask(
                create_review_queue,
                name,
                queue_type="custom",
                users=sorted(set(reviewers)),
                schema_ids=[self._question(guidelines)],
                experiment_id=self._experiment_id,
            )
        if missing := set(reviewers) - set(found.users):
            ask(update_review_queue, found.queue_id, users=sorted({*found.users, *missing}))
        return str(found.queue_id)

    def _question(self, guidelines: str) -> str:
        from mlflow.genai.label_schemas import InputCategorical, create_label_schema, get_label_schema

        try:
            return str(ask(get_label_schema, QUESTION, experiment_id=self._experiment_id).schema_id)
        except NotFound:
            made = ask(
                create_label_schema,
                QUESTION,
                type="feedback",
                input=InputCategorical(options=list(get_args(Choice))),
                instruction=guidelines,
                enable_comment=True,
                experiment_id=self._experiment_id,
            )
            return str(made.schema_id)


def _verdicts(trace: "Trace") -> list[Verdict]:
    last: dict[str, tuple[int, Verdict]] = {}
    for given in trace.info.assessments or ():
        value = given.feedback.value if given.name == QUESTION and given.feedback else None
        if given.valid is False or given.source.source_type != "HUMAN" or value not in get_args(Choice):
            continue
        who, when = str(given.source.source_id), given.last_update_time_ms or 0
        if who not in last or when >= last[who][0]:
            last[who] = when, Verdict(key=trace.info.tags[_PAIR], reviewer=who, choice=value)
    return [verdict for _, verdict in last.values()]
