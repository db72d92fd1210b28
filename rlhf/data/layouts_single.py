"""Readers of demonstrations, prompts, raw documents and feedback on single responses."""

from rlhf.data.conversation import Draft, Message, asked
from rlhf.data.labels import is_good, number
from rlhf.data.layouts_pairs import Canonical, Read, history, rater
from rlhf.data.records import shown


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


def _judged(
    draft: Draft,
    prompt: list[Message] | None,
    response: str | None,
    label: bool | None,
    score: float | None = None,
    name: str = "",
) -> list[Canonical]:
    if prompt is None or response is None or (label is None and score is None):
        return []
    who = name or rater(draft.row.value)
    return [{"prompt": prompt, "response": response, "rater": who, "label": label, "score": score}]


def unpaired_turns(draft: Draft) -> list[Canonical]:
    """Read TRL's conversational prompt, completion and label."""
    pairs = completion(draft)
    label = is_good(draft, "label")
    return [row for pair in pairs for row in _judged(draft, _turns(pair), str(pair["response"]), label)]


def unpaired_messages(draft: Draft) -> list[Canonical]:
    """Read a conversation with a label on its last turn."""
    pairs = messages("messages")(draft)
    label = is_good(draft, "label")
    return [row for pair in pairs for row in _judged(draft, _turns(pair), str(pair["response"]), label)]


def _turns(pair: Canonical) -> list[Message]:
    prompt = pair["prompt"]
    assert isinstance(prompt, list), "readers return conversations"
    return prompt


def unpaired(ask: str, reply: str, label: str) -> Read:
    """Return the reader of a prompt, a response and a label."""

    def read(draft: Draft) -> list[Canonical]:
        prompt, response = draft.text(draft.row.value, ask), draft.text(draft.row.value, reply)
        return _judged(draft, None if prompt is None else asked(prompt), response, is_good(draft, label))

    return read


def scored(key: str) -> Read:
    """Return the reader of a prompt, a response and a number; of a list of numbers each is one judge's."""

    def read(draft: Draft) -> list[Canonical]:
        record = draft.row.value
        prompt, response = draft.text(record, "prompt"), draft.text(record, "response")
        value = record.get(key)
        values = (
            {f"judge_{i + 1}": v for i, v in enumerate(value)} if isinstance(value, list) else {"": value}
        )
        numbers = {who: number(draft, v, key) for who, v in values.items()}
        turns = None if prompt is None else asked(prompt)
        return [
            row for who, score in numbers.items() for row in _judged(draft, turns, response, None, score, who)
        ]

    return read


def graded(ask: str, reply: str, *grades: str) -> Read:
    """Return the reader of a response with a grade of each rater in a column of its own (`2_full_refusal`)."""

    def read(draft: Draft) -> list[Canonical]:
        record = draft.row.value
        prompt, response = draft.text(record, ask), draft.text(record, reply)
        rows: list[Canonical] = []
        for name in grades:
            grade = draft.text(record, name)
            digits = (grade or "").partition("_")[0]
            if grade is not None and not digits.isdecimal():
                message = f"the grade is {shown(grade)}; wanted a number and a name"
                draft.row.found("label_out_of_domain", name, message)
            elif grade is not None:
                turns = None if prompt is None else asked(prompt)
                rows += _judged(draft, turns, response, None, float(digits), name)
        draft.texts = [(where, text) for where, text in draft.texts if where not in grades]
        return rows

    return read


def canonical_feedback(draft: Draft) -> list[Canonical]:
    """Read the canonical table itself: prompt, response, rater, label and score."""
    record = draft.row.value
    turns, response = draft.conversation(record, "prompt"), draft.text(record, "response")
    label = is_good(draft, "label") if record.get("label") is not None else None
    score = number(draft, record["score"], "score") if record.get("score") is not None else None
    if label is None and score is None and not draft.row.fatal:
        draft.row.found("null_field", "label", "neither a label nor a score is given")
    sound = turns is not None and draft.asks(turns, "prompt")
    return _judged(draft, turns if sound else None, response, label, score)


def canonical_answer(draft: Draft) -> list[Canonical]:
    """Read a prompt that is a conversation, with a text that answers it."""
    record = draft.row.value
    turns, response = draft.conversation(record, "prompt"), draft.text(record, "response")
    if turns is None or response is None or not draft.asks(turns, "prompt"):
        return []
    return [{"prompt": turns, "response": response}]
