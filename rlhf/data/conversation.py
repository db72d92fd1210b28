"""Take texts and conversations out of a record, whatever their spelling, and name what is wrong with them."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypedDict

import orjson

from rlhf.data.records import Json, Row, shown

Domain = Literal["boolean", "number", "text"]


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_SPEAKERS = {
    **_ROLES,
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
    "function": "tool",
    "observation": "tool",
}
"""Names under ShareGPT's `from`, and in HH-RLHF transcripts; `role` takes the chat template's names only."""
_NO_INPUT = re.compile(r"\s*<\s*no[ _-]?input\s*>\s*", re.IGNORECASE)
"""How text-davinci wrote that an Alpaca instruction has no input."""
_TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(slots=True)
class Draft:
    """A row on its way to the canonical table: the texts taken out so far, each with its place in the record."""

    row: Row
    domain: Domain = "number"
    """The type that most labels of the file have."""
    texts: list[tuple[str, str]] = field(default_factory=list)
    """(field, text) of everything that the content rules look at."""

    def text(self, record: dict[str, Json], key: str, path: str = "") -> str | None:
        """Return a required text, or None with a finding."""
        where = f"{path}.{key}" if path else key
        if key not in record:
            self.row.found("missing_field", where, f"the field {key!r} is missing")
            return None
        return self.string(record[key], where)

    def string(self, value: Json, where: str) -> str | None:
        """Return a value that must be text, or None with a finding; nothing is coerced."""
        if isinstance(value, str):
            self.texts.append((where, value))
            return value
        if value is None:
            self.row.found("null_field", where, "the text is null")
        else:
            self.row.found("non_string_content", where, f"found {shown(value)} where a text was wanted")
        return None

    def optional(self, record: dict[str, Json], key: str) -> str:
        """Return a text that may be absent, null or blank; blank ones become the empty text."""
        value = record.get(key)
        if value is None or (isinstance(value, str) and (not value.strip() or _NO_INPUT.fullmatch(value))):
            return ""
        return self.string(value, key) or ""

    def conversation(self, record: dict[str, Json], key: str) -> list[Message] | None:
        """Return the turns of a required conversation, or None with findings."""
        value = record.get(key)
        if not isinstance(value, list) or not value:
            self._no_conversation(record, key)
            return None
        turns: list[Message] = []
        for index, turn in enumerate(value):
            if not isinstance(turn, dict):
                what = shown(turn) if len(value) < 2 else f"{shown(turn)} in place {index}"
                self.row.found("schema_type", key, f"found {what} where a list of messages was wanted")
                return None
            role, content = turn.get("role"), turn.get("content")
            if isinstance(content, str) and isinstance(role, str) and _ROLES.get(role) == role:
                self.texts.append((f"{key}[{index}].content", content))
                turns.append({"role": role, "content": content})
            elif said := self._turn(turn, f"{key}[{index}]"):
                turns.append(said)
        return turns if len(turns) == len(value) else None

    def _no_conversation(self, record: dict[str, Json], key: str) -> None:
        value = record.get(key)
        if key not in record:
            self.row.found("missing_field", key, f"the field {key!r} is missing")
        elif value is None:
            self.row.found("null_field", key, "the conversation is null")
        elif value == []:
            self.row.found("empty_conversation", key, "the conversation has no turns")
        else:
            self.row.found("schema_type", key, f"found {shown(value)} where a list of messages was wanted")

    def _turn(self, turn: dict[str, Json], where: str) -> Message | None:
        role_key, content_key = ("from", "value") if "from" in turn else ("role", "content")
        role = turn.get(role_key)
        names = _SPEAKERS if role_key == "from" else _ROLES
        known = names.get(role) if isinstance(role, str) else None
        if known is None:
            self.row.found("unknown_role", f"{where}.{role_key}", f"the role is {shown(role)}")
        content = turn.get(content_key)
        if isinstance(content, list) and content:
            content = _joined(content)
        if content is None and known == "assistant" and turn.get("tool_calls"):
            content = orjson.dumps(turn["tool_calls"], default=str).decode()
        elif content_key not in turn:
            self.row.found("missing_field", f"{where}.{content_key}", "the turn has no content")
            return None
        text = self.string(content, f"{where}.{content_key}")
        return None if known is None or text is None else Message(role=known, content=text)

    def check_order(self, turns: list[Message], key: str, role_key: str = "role") -> bool:
        """Tell whether a system turn comes first only, the user opens, and turns alternate."""
        problems = _order_problems(tuple([turn["role"] for turn in turns]))
        for index, kind, message in problems:
            self.row.found(kind, f"{key}[{index}].{role_key}", message)
        return not problems

    def asks(self, turns: list[Message], key: str, role_key: str = "role") -> bool:
        """Tell whether a prompt has its turns in order and ends with the user (or a tool)."""
        sound = self.check_order(turns, key, role_key)
        if turns[-1]["role"] not in {"user", "tool"}:
            self.row.found(
                "last_turn_role", f"{key}[-1].{role_key}", f"the prompt ends with {turns[-1]['role']}"
            )
            return False
        return sound

    def answered(
        self, turns: list[Message], key: str, role_key: str = "role"
    ) -> tuple[list[Message], str] | None:
        """Split a conversation into the prompt and the assistant's last turn."""
        sound = self.check_order(turns, key, role_key)
        if turns[-1]["role"] != "assistant":
            self.row.found(
                "last_turn_role", f"{key}[-1].{role_key}", f"the last turn is the {turns[-1]['role']}'s"
            )
            return None
        if len(turns) < 2:
            return None
        return (turns[:-1], turns[-1]["content"]) if sound else None

    def transcript(self, text: str, key: str) -> tuple[list[Message], str] | None:
        """Split an HH-RLHF dialogue (`Human:` and `Assistant:` after blank lines) into prompt and response."""
        before, *pieces = _TURN.split(text)
        turns = [
            Message(role=_SPEAKERS[speaker.lower()], content=said.strip())
            for speaker, said in zip(pieces[::2], pieces[1::2], strict=True)
        ]
        if before.strip() or not turns:
            self.row.found(
                "unparsable_dialogue", key, "the text does not start with a 'Human:' turn after a blank line"
            )
            return None
        self.texts += [(key, turn["content"]) for turn in turns]
        if turns[-1]["role"] != "assistant":
            self.row.found("last_turn_role", key, "the dialogue ends with the human")
            return None
        previous = "assistant"
        for turn in turns:
            if turn["role"] == previous:
                self.row.found("roles_not_alternating", key, f"two {previous} turns in a row")
                break
            previous = turn["role"]
        return turns[:-1], turns[-1]["content"]


def _joined(parts: list[Json]) -> Json:
    """Return the text of a content that is a list of typed parts; other parts than text are returned as they are."""
    texts = [
        part.get("text", part.get("value"))
        for part in parts
        if isinstance(part, dict) and part.get("type", "text") == "text"
    ]
    strings = [text for text in texts if isinstance(text, str)]
    return "".join(strings) if len(strings) == len(parts) else parts


@lru_cache(maxsize=10_000)
def _order_problems(roles: tuple[str, ...]) -> tuple[tuple[int, str, str], ...]:
    """Return (turn, kind, message) of every turn that speaks out of order."""
    problems = []
    previous = ""
    for index, role in enumerate(roles):
        if role == "system" and index:
            problems.append((index, "system_not_first", "a system turn in the middle of the conversation"))
        elif role in {"assistant", "tool"} and previous in {"", "system"}:
            problems.append((index, "first_turn_not_user", f"the conversation starts with the {role}"))
        elif role == previous and role != "tool":
            problems.append((index, "roles_not_alternating", f"two {role} turns in a row"))
        previous = role
    return tuple(problems)


def asked(*texts: str) -> list[Message]:
    """Return the prompt that one user turn makes of the non-blank texts."""
    return [Message(role="user", content="\n\n".join(text for text in texts if text))]
