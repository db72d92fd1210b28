"""Readers of comparisons: pairs, A/B labels, ranked lists."""

import math
import re
from collections.abc import Callable
from typing import TypeAlias

from rlhf.data.conversation import Draft, Message, asked
from rlhf.data.records import Json, shown

Canonical: TypeAlias = dict[str, object]
Read: TypeAlias = Callable[[Draft], list[Canonical]]

AB_FIELDS = tuple(
    (prompt, one, two, label)
    for prompt in ("instruction", "prompt", "input", "question")
    for one, two in (("output_1", "output_2"), ("response1", "response2"), ("response 1", "response 2"),
                     ("response_1", "response_2"), ("response_a", "response_b"), ("completion_a", "completion_b"))
    for label in ("preference", "label", "winner")
)  # fmt: skip
_WORD = re.compile(r"[\W_]+")


def folded(text: str) -> str:
    """Return a text without case, punctuation and space, for comparisons up to those."""
    return _WORD.sub(" ", text.casefold()).strip()


def _pair(
    draft: Draft, prompt: list[Message], chosen: str, rejected: str, margin: float | None = None
) -> list[Canonical]:
    """Return one preference row, after the checks that every pair goes through."""
    row = draft.row
    if chosen.strip() == rejected.strip():
        row.found("identical_pair", "rejected", "chosen and rejected are the same text")
    elif (plain := folded(chosen)) == folded(rejected) and plain:
        row.found(
            "identical_pair",
            "rejected",
            "chosen and rejected differ in case or punctuation only",
            fatal=False,
        )
    scores = [_score(draft, name) for name in ("score_chosen", "score_rejected")]
    if scores[0] is not None and scores[1] is not None:
        margin = scores[0] - scores[1]
        if margin <= 0:
            row.found(
                "score_order",
                "score_chosen",
                f"score_chosen {scores[0]} is not above score_rejected {scores[1]}",
            )
    return [
        {
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "chosen_finished": _finished(draft, "chosen_finished"),
            "rejected_finished": _finished(draft, "rejected_finished"),
            "margin": margin,
            "weight": 1.0,
        }
    ]


def _finished(draft: Draft, name: str) -> bool:
    """Tell whether a response ended by itself; what people wrote or collected did, unless the row says otherwise."""
    value = draft.row.value.get(name)
    if value is not None and not isinstance(value, bool):
        draft.row.found("schema_type", name, f"found {shown(value)} where true or false was wanted")
    return value is not False


def _score(draft: Draft, name: str) -> float | None:
    value = draft.row.value.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        draft.row.found("schema_type", name, f"the score is {shown(value)}, not a number")
        return None
    return float(value) if math.isfinite(value) else None


def standard(draft: Draft) -> list[Canonical]:
    """Read TRL's three texts."""
    prompt, chosen, rejected = (
        draft.text(draft.row.value, name) for name in ("prompt", "chosen", "rejected")
    )
    if prompt is None or chosen is None or rejected is None:
        return []
    return _pair(draft, asked(prompt), chosen, rejected)


def alpaca(draft: Draft) -> list[Canonical]:
    """Read instruction, optional input, chosen and rejected."""
    record = draft.row.value
    instruction, chosen, rejected = (
        draft.text(record, name) for name in ("instruction", "chosen", "rejected")
    )
    extra = draft.optional(record, "input")
    if instruction is None or chosen is None or rejected is None:
        return []
    return _pair(draft, asked(instruction, extra), chosen, rejected)


def conversational(draft: Draft) -> list[Canonical]:
    """Read TRL's three conversations; turns that both responses share belong to the prompt."""
    record = draft.row.value
    prompt, chosen, rejected = (draft.conversation(record, name) for name in ("prompt", "chosen", "rejected"))
    sound = prompt is not None and draft.asks(prompt, "prompt")
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if turns and turns[0]["role"] != "assistant":
            draft.row.found("last_turn_role", f"{name}[0].role", f"the response is by the {turns[0]['role']}")
            sound = False
    if not sound or prompt is None or chosen is None or rejected is None:
        return []
    return _continued(draft, [*prompt, *chosen], [*prompt, *rejected])


def implicit(draft: Draft) -> list[Canonical]:
    """Read two whole conversations that share all but the last turn."""
    chosen, rejected = (draft.conversation(draft.row.value, name) for name in ("chosen", "rejected"))
    if chosen is None or rejected is None:
        return []
    return _continued(draft, chosen, rejected)


def typed(draft: Draft) -> list[Canonical]:
    """Read two whole conversations whose contents are lists of typed parts."""
    names = ("chosen_messages", "rejected_messages")
    chosen, rejected = (draft.conversation(draft.row.value, name) for name in names)
    if chosen is None or rejected is None:
        return []
    return _continued(draft, chosen, rejected, names)


def _continued(
    draft: Draft,
    chosen: list[Message],
    rejected: list[Message],
    names: tuple[str, str] = ("chosen", "rejected"),
) -> list[Canonical]:
    good, bad = draft.answered(chosen, names[0]), draft.answered(rejected, names[1])
    if good is None or bad is None:
        if not draft.row.fatal:
            draft.row.found("empty_conversation", names[0], "a response without a prompt")
        return []
    if good[0] != bad[0]:
        draft.row.found("prompt_mismatch", "/".join(names), "chosen and rejected do not share the prompt")
        return []
    return _pair(draft, good[0], good[1], bad[1])


def transcripts(draft: Draft) -> list[Canonical]:
    """Read two HH-RLHF dialogues, cut at the last assistant turn."""
    texts = {name: draft.text(draft.row.value, name) for name in ("chosen", "rejected")}
    draft.texts.clear()
    parts = [draft.transcript(text, name) for name, text in texts.items() if text is not None]
    if len(parts) < 2 or parts[0] is None or parts[1] is None:
        return []
    if parts[0][0] != parts[1][0]:
        draft.row.found(
            "prompt_mismatch", "chosen/rejected", "the dialogues differ before the last 'Assistant:' turn"
        )
        return []
    draft.texts = list(dict.fromkeys(draft.texts))
    return _pair(draft, parts[0][0], parts[0][1], parts[1][1])


def sharegpt(draft: Draft) -> list[Canonical]:
    """Read a ShareGPT conversation with one chosen and one rejected turn."""
    record = draft.row.value
    prompt = draft.conversation(record, "conversations")
    answers: list[Message | None] = []
    for name in ("chosen", "rejected"):
        value = record.get(name)
        turns = draft.conversation({name: [value]}, name) if isinstance(value, dict) else None
        if not isinstance(value, dict):
            kind = (
                "null_field"
                if value is None and name in record
                else "missing_field"
                if value is None
                else "schema_type"
            )
            draft.row.found(kind, name, f"found {shown(value)} where a message was wanted")
        answers.append(turns[0] if turns else None)
    chosen, rejected = answers
    if (
        prompt is None
        or chosen is None
        or rejected is None
        or not draft.asks(prompt, "conversations", "from")
    ):
        return []
    return _continued(draft, [*prompt, chosen], [*prompt, rejected])


def ranked_list(draft: Draft) -> list[Canonical]:
    """Read LLaMA-Factory's old ranking layout: `output` lists the better response first."""
    record = draft.row.value
    instruction, extra = draft.text(record, "instruction"), draft.optional(record, "input")
    output = record.get("output")
    if not isinstance(output, list) or len(output) < 2:
        draft.row.found("too_few_responses", "output", "fewer than two responses")
        return []
    chosen, rejected = draft.string(output[0], "output[0]"), draft.string(output[1], "output[1]")
    past = history(draft)
    if instruction is None or chosen is None or rejected is None or past is None:
        return []
    return _pair(draft, [*past, *asked(instruction, extra)], chosen, rejected)


def history(draft: Draft) -> list[Message] | None:
    """Return the earlier turns of an Alpaca row, or None with a finding."""
    turns: list[Message] = []
    pairs = draft.row.value.get("history") or []
    for index, pair in enumerate(pairs if isinstance(pairs, list) else [pairs]):
        if not isinstance(pair, list) or len(pair) != 2:
            draft.row.found(
                "schema_type", f"history[{index}]", f"found {shown(pair)} where [user, assistant] was wanted"
            )
            return None
        for role, value in zip(("user", "assistant"), pair, strict=True):
            text = draft.string(value, f"history[{index}]")
            if text is None:
                return None
            turns.append(Message(role=role, content=text))
    return turns


_NAMES = {"1": 1.0, "2": 2.0, "a": 1.0, "b": 2.0, "model_a": 1.0, "model_b": 2.0, "tie": 1.5,
          "a-is-better": 1.0, "b-is-better": 2.0, "a-is-slightly-better": 1.0, "b-is-slightly-better": 2.0}  # fmt: skip


def _verdict(draft: Draft, field: str, prompt: str) -> float | None:
    """Return 1 (first is better) to 2 (second is better), 1.5 a tie; or None with a finding."""
    value: Json = draft.row.value.get(field)
    if field not in draft.row.value:
        draft.row.found("missing_field", field, "the label is missing")
    elif value is None:
        draft.row.found("null_field", field, "the label is null")
    elif isinstance(value, bool) or not isinstance(value, int | float | str):
        draft.row.found("label_type", field, f"the label is {shown(value)}, not a number")
    elif isinstance(value, str):
        if field == "preference" and prompt == "instruction":
            kind = "label_type" if value.strip() in {"1", "2", "1.5"} else "label_out_of_domain"
            draft.row.found(kind, field, f"the label is the text {shown(value)}; wanted the number 1 or 2")
        elif value.lower() in _NAMES:
            return _NAMES[value.lower()]
        else:
            draft.row.found(
                "label_out_of_domain", field, f"the label {shown(value)} is not among {', '.join(_NAMES)}"
            )
    elif not 1 <= value <= 2:
        draft.row.found("label_out_of_domain", field, f"the label is {value}; wanted 1, 2 or between")
    else:
        return float(value)
    return None


def _two(draft: Draft, prompt: str, one: str, two: str) -> tuple[list[Message], str, str] | None:
    record = draft.row.value
    ask, first, second = draft.text(record, prompt), draft.text(record, one), draft.text(record, two)
    extra = draft.optional(record, "input") if prompt == "instruction" else ""
    return None if ask is None or first is None or second is None else (asked(ask, extra), first, second)


def labelled(prompt: str, one: str, two: str, label: str) -> Read:
    """Return the reader of two responses with a label that says which is better."""

    def read(draft: Draft) -> list[Canonical]:
        parts, verdict = _two(draft, prompt, one, two), _verdict(draft, label, prompt)
        if verdict == 1.5:
            draft.row.found(
                "label_out_of_domain", label, "a tie: no pair can be made of it (rankings keep ties)"
            )
            return []
        if parts is None or verdict is None:
            return []
        ask, first, second = parts
        better, worse = (first, second) if verdict < 1.5 else (second, first)
        return _pair(draft, ask, better, worse, None if verdict in (1.0, 2.0) else abs(2 * verdict - 3))

    return read


def ranked_two(prompt: str, one: str, two: str, label: str) -> Read:
    """Return the reader of two responses with a label, as a ranking that keeps ties."""

    def read(draft: Draft) -> list[Canonical]:
        parts, verdict = _two(draft, prompt, one, two), _verdict(draft, label, prompt)
        if parts is None or verdict is None:
            return []
        ranks = [1, 1] if verdict == 1.5 else [1, 2] if verdict < 1.5 else [2, 1]
        rater = draft.row.value.get("annotator") or draft.row.value.get("evaluator") or "unknown"
        return [
            {
                "prompt": parts[0],
                "responses": [parts[1], parts[2]],
                "finished": [True, True],
                "rater": str(rater),
                "ranks": ranks,
            }
        ]

    return read


def _prompt(draft: Draft) -> list[Message] | None:
    record = draft.row.value
    if isinstance(record.get("prompt"), str):
        text = draft.text(record, "prompt")
        return None if text is None else asked(text)
    turns = draft.conversation(record, "prompt")
    return turns if turns is not None and draft.asks(turns, "prompt") else None


def ranked_responses(draft: Draft) -> list[Canonical]:
    """Read a prompt with a list of responses that each carry a rank (low is good) or a score (high is good)."""
    prompt = _prompt(draft)
    items = draft.row.value.get("responses")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        draft.row.found(
            "schema_type", "responses", f"found {shown(items)} where a list of responses was wanted"
        )
        return []
    responses, order = [], []
    for index, item in enumerate(items):
        assert isinstance(item, dict), "checked above"
        key = next((key for key in ("content", "text", "response", "completion") if key in item), "content")
        responses.append(draft.text(item, key, f"responses[{index}]"))
        by_rank = "rank" in item
        value = item.get("rank" if by_rank else "score")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            draft.row.found("ranking_inconsistent", f"responses[{index}]", f"rank or score is {shown(value)}")
        else:
            order.append(float(value) if by_rank else -float(value))
    return _ranking(draft, prompt, responses, order)


def ranked_texts(draft: Draft) -> list[Canonical]:
    """Read a prompt with a list of texts and a list of ranks (1 is best, null is not ranked)."""
    prompt, items, ranks = _prompt(draft), draft.row.value.get("responses"), draft.row.value.get("ranks")
    if not isinstance(items, list) or not isinstance(ranks, list) or len(items) != len(ranks):
        draft.row.found(
            "ranking_inconsistent", "ranks", "responses and ranks are not lists of the same length"
        )
        return []
    responses = [draft.string(item, f"responses[{index}]") for index, item in enumerate(items)]
    order = []
    for index, rank in enumerate(ranks):
        if rank is None:
            order.append(math.nan)
        elif isinstance(rank, bool) or not isinstance(rank, int):
            draft.row.found(
                "ranking_inconsistent", f"ranks[{index}]", f"the rank is {shown(rank)}, not a whole number"
            )
        else:
            order.append(float(rank))
    return _ranking(draft, prompt, responses, order)


def _ranking(
    draft: Draft, prompt: list[Message] | None, responses: list[str | None], order: list[float]
) -> list[Canonical]:
    texts = [text for text in responses if text is not None]
    ranked = sorted({value for value in order if not math.isnan(value)})
    if len({text.strip() for text in texts}) < 2 or sum(not math.isnan(value) for value in order) < 2:
        draft.row.found("too_few_responses", "responses", "fewer than two different responses with a rank")
        return []
    if prompt is None or len(texts) != len(order) or len(texts) != len(responses):
        return []
    ranks = [
        None if math.isnan(value) else sum(v < value for v in order if not math.isnan(v)) + 1
        for value in order
    ]
    if len(ranked) == 1 and len(order) > 2:
        draft.row.found("ranking_inconsistent", "responses", "all responses have the same rank", fatal=False)
    rater = draft.row.value.get("rater") or draft.row.value.get("annotator") or "unknown"
    finished = draft.row.value.get("finished", [True] * len(texts))
    if not isinstance(finished, list) or [type(value) for value in finished] != [bool] * len(texts):
        draft.row.found(
            "schema_type",
            "finished",
            f"found {shown(finished)} where one true or false per response was wanted",
        )
        return []
    return [{"prompt": prompt, "responses": texts, "finished": finished, "rater": str(rater), "ranks": ranks}]
