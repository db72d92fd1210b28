"""Readers of demonstrations, prompts, raw documents and feedback on single responses."""

from rlhf.data.conversation import Draft, Message, asked
from rlhf.data.layouts_pairs import Canonical, Read, history
from rlhf.data.records import Json, shown


def messages(key: str) -> Read:
    """Return the reader of whole conversations; the last assistant turn is the response."""
    role_key = "from" if key == "conversations" else "role"

    def read(draft: Draft) -> list[Canonical]:
        turns = draft.conversation(draft.row.value, key)
        parts = draft.answered(turns, key, role_key) if turns else None
        return [{"prompt": parts[0], "response": parts[1]}] if parts else []

    return read


def completion(draft: Draft) -> list[Canonical]:
    """Read TRL's conversational prompt and completion."""
    record = draft.row.value
    prompt, reply = draft.conversation(record, "prompt"), draft.conversation(record, "completion")
    if prompt is None or reply is None or not draft.asks(prompt, "prompt"):
        return []
    parts = draft.answered([*prompt, *reply], "completion")
    return [{"prompt": parts[0], "response": parts[1]}] if parts else []


def answer(ask: str, reply: str) -> Read:
    """Return the reader of a question and an answer, with Alpaca's optional `input` and `history`."""

    def read(draft: Draft) -> list[Canonical]:
        record = draft.row.value
        question, response = draft.text(record, ask), draft.text(record, reply)
        extra = draft.optional(record, "input") if ask == "instruction" else ""
        past = history(draft) if ask == "instruction" else []
        if question is None or response is None or past is None:
            return []
        return [{"prompt": [*past, *asked(question, extra)], "response": response}]

    return read


def instances(draft: Draft) -> list[Canonical]:
    """Read a self-instruct task: one instruction with several inputs and outputs."""
    record = draft.row.value
    instruction, items = draft.text(record, "instruction"), record.get("instances")
    rows: list[Canonical] = []
    for index, item in enumerate(items if isinstance(items, list) else []):
        if not isinstance(item, dict):
            draft.row.found("schema_type", f"instances[{index}]", f"found {shown(item)}, not an object")
            continue
        extra = item.get("input")
        response = draft.text(item, "output", f"instances[{index}]")
        if instruction is not None and response is not None:
            rows.append(
                {"prompt": asked(instruction, extra if isinstance(extra, str) else ""), "response": response}
            )
    return rows


def prompt_turns(key: str) -> Read:
    """Return the reader of prompts that are conversations; an answer at the end is left away."""

    def read(draft: Draft) -> list[Canonical]:
        turns = draft.conversation(draft.row.value, key)
        if turns and key == "messages" and turns[-1]["role"] == "assistant" and len(turns) > 1:
            turns = turns[:-1]
        return [{"prompt": turns}] if turns and draft.asks(turns, key) else []

    return read


def prompt_text(key: str) -> Read:
    """Return the reader of prompts that are texts, with an optional `input` or `ContextString`."""

    def read(draft: Draft) -> list[Canonical]:
        text = draft.text(draft.row.value, key)
        extra = {"instruction": "input", "Behavior": "ContextString"}.get(key)
        more = draft.optional(draft.row.value, extra) if extra else ""
        return [] if text is None else [{"prompt": asked(text, more)}]

    return read


def first_turn(draft: Draft) -> list[Canonical]:
    """Read the first of several user turns (the later ones need the model's answers)."""
    turns = draft.row.value.get("turns")
    text = draft.string(turns[0] if isinstance(turns, list) and turns else None, "turns[0]")
    return [] if text is None else [{"prompt": asked(text)}]


def prompt_transcript(draft: Draft) -> list[Canonical]:
    """Read the prompt of an HH-RLHF pair."""
    text = draft.text(draft.row.value, "chosen")
    draft.texts.clear()
    parts = draft.transcript(text, "chosen") if text is not None else None
    return [{"prompt": parts[0]}] if parts else []


def document(key: str) -> Read:
    """Return the reader of raw documents."""

    def read(draft: Draft) -> list[Canonical]:
        text = draft.text(draft.row.value, key)
        return [] if text is None else [{"text": text}]

    return read


_LABELS = {"safe": True, "unsafe": False, "yes": True, "no": False, "good": True, "bad": False}


def _label(draft: Draft, key: str) -> bool | None:
    value: Json = draft.row.value.get(key)
    if key not in draft.row.value:
        draft.row.found("missing_field", key, "the label is missing")
    elif value is None:
        draft.row.found("null_field", key, "the label is null")
    elif isinstance(value, bool):
        return value
    elif isinstance(value, str) and value.strip().lower() in _LABELS:
        return _LABELS[value.strip().lower()]
    else:
        draft.row.found("label_type", key, f"the label is {shown(value)}; wanted true or false")
    return None


def _judged(
    draft: Draft,
    prompt: list[Message] | None,
    response: str | None,
    label: bool | None,
    score: float | None = None,
) -> list[Canonical]:
    if prompt is None or response is None or (label is None and score is None):
        return []
    rater = draft.row.value.get("rater") or draft.row.value.get("annotator") or "unknown"
    return [{"prompt": prompt, "response": response, "rater": str(rater), "label": label, "score": score}]


def unpaired_turns(draft: Draft) -> list[Canonical]:
    """Read TRL's conversational prompt, completion and label."""
    pairs = completion(draft)
    label = _label(draft, "label")
    return [row for pair in pairs for row in _judged(draft, _turns(pair), str(pair["response"]), label)]


def unpaired_messages(draft: Draft) -> list[Canonical]:
    """Read a conversation with a label on its last turn."""
    pairs = messages("messages")(draft)
    label = _label(draft, "label")
    return [row for pair in pairs for row in _judged(draft, _turns(pair), str(pair["response"]), label)]


def _turns(pair: Canonical) -> list[Message]:
    prompt = pair["prompt"]
    assert isinstance(prompt, list), "readers return conversations"
    return prompt


def unpaired(ask: str, reply: str, label: str) -> Read:
    """Return the reader of a prompt, a response and a label."""

    def read(draft: Draft) -> list[Canonical]:
        prompt, response = draft.text(draft.row.value, ask), draft.text(draft.row.value, reply)
        return _judged(draft, None if prompt is None else asked(prompt), response, _label(draft, label))

    return read


def scored(key: str) -> Read:
    """Return the reader of a prompt, a response and a number, or a list of numbers of which the mean counts."""

    def read(draft: Draft) -> list[Canonical]:
        record = draft.row.value
        prompt, response, value = (
            draft.text(record, "prompt"),
            draft.text(record, "response"),
            record.get(key),
        )
        values = value if isinstance(value, list) else [value]
        numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(values) or not numbers:
            draft.row.found("label_type", key, f"the score is {shown(value)}, not a number")
            return []
        return _judged(
            draft, None if prompt is None else asked(prompt), response, None, sum(numbers) / len(numbers)
        )

    return read
