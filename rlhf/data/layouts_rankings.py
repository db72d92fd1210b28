"""Readers of rankings: K responses with ranks or scores, several raters, answers marked right or wrong, trees."""

import math
from itertools import combinations

from rlhf.data.conversation import Draft, Message, asked
from rlhf.data.labels import TIE, is_good, number, preferred
from rlhf.data.layouts_pairs import Canonical, Read, pair, rater, two
from rlhf.data.records import Json, shown


def ranked_two(prompt: str, one: str, other: str, label: str, scheme: str) -> Read:
    """Return the reader of two responses with a label, as a ranking that keeps ties."""

    def read(draft: Draft) -> list[Canonical]:
        parts, verdict = two(draft, prompt, one, other), preferred(draft, label, scheme)
        if parts is None or verdict is None:
            return []
        return [_compared(parts, verdict, rater(draft.row.value))]

    return read


def several_raters(prompt: str, one: str, other: str, labels: tuple[str, ...], scheme: str) -> Read:
    """Return the reader of two responses with the label of each rater in a column of its own."""

    def read(draft: Draft) -> list[Canonical]:
        parts = two(draft, prompt, one, other)
        votes = {
            name: preferred(draft, name, scheme)
            for name in labels
            if draft.row.value.get(name) not in (None, "")
        }
        if not votes:
            draft.row.found("null_field", labels[0], "no rater gave a label")
        if parts is None:
            return []
        return [_compared(parts, vote, name) for name, vote in votes.items() if vote is not None]

    return read


def _compared(parts: tuple[list[Message], str, str], verdict: float, who: str) -> Canonical:
    ranks = [1, 1] if verdict == TIE else [1, 2] if verdict < TIE else [2, 1]
    return {
        "prompt": parts[0], "responses": [parts[1], parts[2]], "finished": [True, True], "rater": who,
        "ranks": ranks,
    }  # fmt: skip


def _prompt(draft: Draft, key: str = "prompt") -> list[Message] | None:
    record = draft.row.value
    if isinstance(record.get(key), str):
        text = draft.text(record, key)
        return None if text is None else asked(text)
    turns = draft.conversation(record, key)
    return turns if turns is not None and draft.asks(turns, key) else None


def ranked_responses(key: str) -> Read:
    """Return the reader of responses that each carry a rank (low is good) or a score (high is good)."""

    def read(draft: Draft) -> list[Canonical]:
        prompt, items = _prompt(draft), draft.row.value.get(key)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            message = f"found {shown(items)} where a list of responses was wanted"
            draft.row.found("schema_type", key, message)
            return []
        responses: list[str | None] = []
        order: list[float] = []
        for index, item in enumerate(items):
            assert isinstance(item, dict), "checked above"
            names = ("content", "text", "response", "completion")
            responses.append(
                draft.text(item, next((n for n in names if n in item), "content"), f"{key}[{index}]")
            )
            name = "rank" if "rank" in item else "score"
            value = number(draft, item.get(name), f"{key}[{index}].{name}", "ranking_inconsistent")
            order.append(math.nan if value is None else value if name == "rank" else -value)
        _check_ranks(draft, key, [item.get("rank") for item in items if isinstance(item, dict)])
        _check_scores(draft, key, [item for item in items if isinstance(item, dict)])
        return ranking(draft, prompt, responses, order)

    return read


def ranked_texts(ranks: str) -> Read:
    """Return the reader of a list of texts beside a list of ranks (1 is best, null: not ranked) or scores."""

    def read(draft: Draft) -> list[Canonical]:
        record = draft.row.value
        prompt, items, places = _prompt(draft), record.get("responses"), record.get(ranks)
        if not isinstance(items, list) or not isinstance(places, list) or len(items) != len(places):
            message = f"responses and {ranks} are not lists of the same length"
            draft.row.found("ranking_inconsistent", ranks, message)
            return []
        responses = [draft.string(item, f"responses[{index}]") for index, item in enumerate(items)]
        sign = 1 if ranks == "ranks" else -1
        order = []
        for index, place in enumerate(places):
            value = None
            if place is not None:
                value = number(draft, place, f"{ranks}[{index}]", "ranking_inconsistent")
            order.append(math.nan if value is None else sign * value)
        if ranks == "ranks":
            _check_ranks(draft, ranks, places)
        return ranking(draft, prompt, responses, order)

    return read


def _check_ranks(draft: Draft, where: str, places: list[Json]) -> None:
    """Find ranks that the number of responses does not allow: from 0 or 1 on, ties may leave gaps below."""
    ranks = [place for place in places if isinstance(place, int | float) and not isinstance(place, bool)]
    if ranks and (min(ranks) < 0 or max(ranks) - min(min(ranks), 1) >= len(places) or min(ranks) > 1):
        message = f"the ranks {shown(', '.join(map(str, ranks)))} do not fit {len(places)} responses"
        draft.row.found("ranking_inconsistent", where, message)


def _check_scores(draft: Draft, where: str, items: list[dict[str, Json]]) -> None:
    """Find responses whose ranks and scores contradict each other."""
    both = [
        (rank, score)
        for item in items
        if isinstance(rank := item.get("rank"), int | float)
        and isinstance(score := item.get("score"), int | float)
    ]
    if any(left[0] < right[0] and left[1] < right[1] for left in both for right in both):
        draft.row.found("ranking_inconsistent", where, "a response with a better rank has a lower score")


def ranking(
    draft: Draft, prompt: list[Message] | None, responses: list[str | None], order: list[float]
) -> list[Canonical]:
    """Return the ranking as places from 1; equal values share a place."""
    texts = [text for text in responses if text is not None]
    ranked = [value for value in order if not math.isnan(value)]
    if draft.row.fatal or prompt is None or len(texts) < len(responses):
        return []
    if len({text.strip() for text in texts}) < 2 or len(ranked) < 2:
        draft.row.found(
            "too_few_responses", "responses", "fewer than two different responses that are ranked"
        )
        return []
    ranks = [None if math.isnan(value) else sum(v < value for v in ranked) + 1 for value in order]
    if len(set(ranked)) == 1 and len(ranked) > 2:
        draft.row.found("tie", "responses", "all responses have the same rank", fatal=False)
    finished = draft.row.value.get("finished", [True] * len(texts))
    if not isinstance(finished, list) or [type(value) for value in finished] != [bool] * len(texts):
        message = f"found {shown(finished)} where one true or false per response was wanted"
        draft.row.found("schema_type", "finished", message)
        return []
    who = rater(draft.row.value)
    return [{"prompt": prompt, "responses": texts, "finished": finished, "rater": who, "ranks": ranks}]


def verified(draft: Draft) -> list[Canonical]:
    """Read a question with several marked solutions: `{"is_correct": ..., "solution": ...}` each."""
    record = draft.row.value
    prompt = draft.text(record, "question")
    responses: list[str | None] = []
    order: list[float] = []
    for name, item in record.items():
        if isinstance(item, dict) and "solution" in item and "is_correct" in item:
            responses.append(draft.text(item, "solution", name))
            right = item["is_correct"]
            if not isinstance(right, bool):
                draft.row.found(
                    "label_type", f"{name}.is_correct", f"found {shown(right)}; wanted true or false"
                )
            order.append(1.0 if right else 2.0)
    return ranking(draft, None if prompt is None else asked(prompt), responses, order)


def right_and_wrong(draft: Draft) -> list[Canonical]:
    """Read TruthfulQA: a question, the best answer, and correct and incorrect ones separated by semicolons."""
    record = draft.row.value
    prompt, best = draft.text(record, "Question"), draft.text(record, "Best Answer")
    places: dict[str, float] = {}
    for rank, name in ((2.0, "Correct Answers"), (3.0, "Incorrect Answers")):
        for answer in draft.optional(record, name).split(";"):
            if answer.strip():
                places.setdefault(answer.strip(), rank)
    if best is not None:
        places[best.strip()] = 1.0
    return ranking(draft, None if prompt is None else asked(prompt), list(places), list(places.values()))


def acceptable(prompt: str, one: str, other: str) -> Read:
    """Return the reader of two answers that are each acceptable or not, as feedback."""

    def read(draft: Draft) -> list[Canonical]:
        parts = two(draft, prompt, one, other)
        labels = [is_good(draft, f"{name}_is_acceptable") for name in (one, other)]
        if parts is None:
            return []
        who = rater(draft.row.value)
        return [
            {"prompt": parts[0], "response": text, "rater": who, "label": label, "score": None}
            for text, label in zip(parts[1:], labels, strict=True)
            if label is not None
        ]

    return read


def as_pairs(read: Read) -> Read:
    """Return the reader that makes every pair of differently ranked responses of a ranking (Ouyang et al. 2022, 3.5)."""

    def pairs(draft: Draft) -> list[Canonical]:
        rows: list[Canonical] = []
        for ranked_once in read(draft):
            prompt, texts, ranks, finished = (
                ranked_once[name] for name in ("prompt", "responses", "ranks", "finished")
            )
            assert isinstance(prompt, list), "readers of rankings return lists"
            assert isinstance(texts, list), "as above"
            assert isinstance(ranks, list), "as above"
            assert isinstance(finished, list), "as above"
            ranked = [(rank, i) for i, rank in enumerate(ranks) if rank is not None]
            for (better, i), (worse, j) in combinations(sorted(ranked), 2):
                if better < worse and texts[i].strip() != texts[j].strip():
                    made = pair(draft, prompt, texts[i], texts[j])[0]
                    rows.append({**made, "chosen_finished": finished[i], "rejected_finished": finished[j]})
        if not rows and not draft.row.fatal:
            draft.row.dropped = draft.row.dropped or "tie"
        return rows

    return pairs
