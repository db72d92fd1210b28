"""Readers of comparisons of two responses: pairs, transcripts, A/B labels."""

import re
from collections.abc import Callable
from typing import TypeAlias

from rlhf.data.conversation import Draft, Message, asked
from rlhf.data.labels import FIRST, SECOND, TIE, number, preferred
from rlhf.data.records import Json, shown

Canonical: TypeAlias = dict[str, object]
Read: TypeAlias = Callable[[Draft], list[Canonical]]

_WORD = re.compile(r"[\W_]+")
_FEW = 32
_RATERS = ("rater", "annotator", "evaluator", "judge", "labeler", "annotator_id")


def folded(text: str) -> str:
    """Return a text without case, punctuation and space, for comparisons up to those."""
    return _WORD.sub(" ", text.casefold()).strip()


def same_folded(left: str, right: str) -> bool:
    """Tell whether two texts differ in case, punctuation and space only."""
    if abs(len(left) - len(right)) > 20 + len(left) // 4 or not _may_be_same(left, right):
        return False
    plain = folded(left)
    return bool(plain) and plain == folded(right)


def _may_be_same(left: str, right: str) -> bool:
    # The first letters decide nearly always and cost next to nothing, the first words nearly all of the rest.
    one, two = left[:1], right[:1]
    if one.lower() != two.lower() and one.isalnum() and two.isalnum():
        return False
    one, two = folded(left[:_FEW]), folded(right[:_FEW])
    return one.startswith(two) or two.startswith(one)


def rater(record: dict[str, Json]) -> str:
    """Return who gave the label, as far as the record says."""
    return next((str(record[name]) for name in _RATERS if isinstance(record.get(name), str | int)), "unknown")


def pair(
    draft: Draft, prompt: list[Message], chosen: str, rejected: str, margin: float | None = None
) -> list[Canonical]:
    """Return one preference row, after the checks that every pair goes through."""
    row, record = draft.row, draft.row.value
    if chosen.strip() == rejected.strip():
        row.found("identical_pair", "rejected", "chosen and rejected are the same text")
    elif same_folded(chosen, rejected):
        message = "chosen and rejected differ in case or punctuation only"
        row.found("identical_pair", "rejected", message, fatal=False)
    if "score_chosen" in record or "score_rejected" in record:
        margin = _margin(draft)
    elif margin is None and record.get("margin") is not None:
        margin = number(draft, record["margin"], "margin", "schema_type")
    weight = record.get("weight")
    sound = isinstance(weight, float) and 0 < weight < float("inf")
    return [
        {
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "chosen_finished": _finished(draft, "chosen_finished"),
            "rejected_finished": _finished(draft, "rejected_finished"),
            "margin": margin,
            "weight": weight if sound else 1.0,
        }
    ]


def _finished(draft: Draft, name: str) -> bool:
    """Tell whether a response ended by itself; what people wrote or collected did, unless the row says otherwise."""
    value = draft.row.value.get(name)
    if value is not None and not isinstance(value, bool):
        draft.row.found("schema_type", name, f"found {shown(value)} where true or false was wanted")
    return value is not False


def _margin(draft: Draft) -> float | None:
    """Return score_chosen - score_rejected, which must be positive."""
    record, names = draft.row.value, ("score_chosen", "score_rejected")
    scores = [
        number(draft, record[name], name, "schema_type") if record.get(name) is not None else None
        for name in names
    ]
    if scores[0] is None or scores[1] is None:
        return None
    if scores[0] <= scores[1]:
        message = f"score_chosen {scores[0]:g} is not above score_rejected {scores[1]:g}"
        draft.row.found("score_order", "score_chosen", message)
    return scores[0] - scores[1]


def texts(*names: str) -> Read:
    """Return the reader of a prompt (with Alpaca's optional `input`), a chosen and a rejected text."""

    def read(draft: Draft) -> list[Canonical]:
        record = draft.row.value
        ask, chosen, rejected = (draft.text(record, name) for name in names)
        extra = draft.optional(record, "input") if names[0] == "instruction" else ""
        if ask is None or chosen is None or rejected is None:
            return []
        return pair(draft, asked(ask, extra), chosen, rejected)

    return read


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
    if len(chosen) == len(rejected) == 1:
        return pair(draft, prompt, chosen[0]["content"], rejected[0]["content"])
    return _continued(draft, [*prompt, *chosen], [*prompt, *rejected])


def responses_as_text(draft: Draft) -> list[Canonical]:
    """Read a prompt that is a conversation, with two texts that answer it."""
    record = draft.row.value
    prompt = draft.conversation(record, "prompt")
    chosen, rejected = draft.text(record, "chosen"), draft.text(record, "rejected")
    if prompt is None or chosen is None or rejected is None or not draft.asks(prompt, "prompt"):
        return []
    return pair(draft, prompt, chosen, rejected)


def implicit(*names: str) -> Read:
    """Return the reader of two whole conversations that share all but the last turn."""

    def read(draft: Draft) -> list[Canonical]:
        chosen, rejected = (draft.conversation(draft.row.value, name) for name in names)
        if chosen is None or rejected is None:
            return []
        draft.texts = list({text: (where, text) for where, text in reversed(draft.texts)}.values())[::-1]
        return _continued(draft, chosen, rejected, (names[0], names[1]))

    return read


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
    return pair(draft, good[0], good[1], bad[1])


def transcripts(draft: Draft) -> list[Canonical]:
    """Read two HH-RLHF dialogues, cut at the last assistant turn."""
    given = {name: draft.text(draft.row.value, name) for name in ("chosen", "rejected")}
    draft.texts.clear()
    parts = [draft.transcript(text, name) for name, text in given.items() if text is not None]
    if len(parts) < 2 or parts[0] is None or parts[1] is None:
        return []
    if parts[0][0] != parts[1][0]:
        message = "the dialogues differ before the last 'Assistant:' turn"
        draft.row.found("prompt_mismatch", "chosen/rejected", message)
        return []
    draft.texts = list({text: (where, text) for where, text in reversed(draft.texts)}.values())[::-1]
    return pair(draft, parts[0][0], parts[0][1], parts[1][1])


def sharegpt(draft: Draft) -> list[Canonical]:
    """Read a ShareGPT conversation with one chosen and one rejected turn."""
    record = draft.row.value
    prompt = draft.conversation(record, "conversations")
    answers: list[Message | None] = []
    for name in ("chosen", "rejected"):
        value = record.get(name)
        turns = draft.conversation({name: [value]}, name) if isinstance(value, dict) else None
        if not isinstance(value, dict):
            absent = "null_field" if name in record else "missing_field"
            kind = absent if value is None else "schema_type"
            draft.row.found(kind, name, f"found {shown(value)} where a message was wanted")
        answers.append(turns[0] if turns else None)
    chosen, rejected = answers
    if prompt is None or not draft.asks(prompt, "conversations", "from"):
        return []
    if chosen is None or rejected is None:
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
    return pair(draft, [*past, *asked(instruction, extra)], chosen, rejected)


def history(draft: Draft) -> list[Message] | None:
    """Return the earlier turns of an Alpaca row, or None with a finding."""
    turns: list[Message] = []
    pairs = draft.row.value.get("history") or []
    for index, past in enumerate(pairs if isinstance(pairs, list) else [pairs]):
        if not isinstance(past, list) or len(past) != 2:
            message = f"found {shown(past)} where [user, assistant] was wanted"
            draft.row.found("schema_type", f"history[{index}]", message)
            return None
        for role, value in zip(("user", "assistant"), past, strict=True):
            text = draft.string(value, f"history[{index}]")
            if text is None:
                return None
            turns.append(Message(role=role, content=text))
    return turns


def two(draft: Draft, prompt: str, one: str, other: str) -> tuple[list[Message], str, str] | None:
    """Return the prompt and both responses of a labelled comparison, or None with findings."""
    record = draft.row.value
    ask, first, second = draft.text(record, prompt), draft.text(record, one), draft.text(record, other)
    extra = draft.optional(record, "input") if prompt == "instruction" else ""
    return None if ask is None or first is None or second is None else (asked(ask, extra), first, second)


def labelled(prompt: str, one: str, other: str, label: str, scheme: str) -> Read:
    """Return the reader of two responses with a label that says which is better."""

    def read(draft: Draft) -> list[Canonical]:
        parts, verdict = two(draft, prompt, one, other), preferred(draft, label, scheme)
        if parts is None or verdict is None:
            return []
        if verdict == TIE:
            draft.row.dropped = "tie"
            return []
        ask, first, second = parts
        better, worse = (first, second) if verdict < TIE else (second, first)
        rows = pair(draft, ask, better, worse, None if verdict in (FIRST, SECOND) else abs(2 * verdict - 3))
        rows[0]["_first_wins"] = verdict < TIE
        return rows

    return read
