"""Readers of OpenAssistant trees: conversations that branch, with the answers to each message ranked by people."""

import math

from rlhf.data.conversation import Draft, Message
from rlhf.data.labels import number
from rlhf.data.layouts_pairs import Canonical
from rlhf.data.layouts_rankings import ranking
from rlhf.data.records import Json, shown


def tree(draft: Draft) -> list[Canonical]:
    """Read an OpenAssistant tree: every message of a person with two or more ranked answers is one ranking."""
    rows: list[Canonical] = []
    for path, where, node in _nodes(draft):
        replies = [
            reply
            for reply in _replies(node)
            if isinstance(reply.get("rank"), int) and not reply.get("deleted")
        ]
        if path[-1]["role"] == "user" and len(replies) > 1:
            answers = [draft.text(reply, "text", f"{where}.replies") for reply in replies]
            places = [number(draft, reply["rank"], f"{where}.replies.rank") or 0.0 for reply in replies]
            rows += ranking(draft, path, answers, places) if len(set(answers)) > 1 else []
    if not rows and not draft.row.fatal:
        draft.row.dropped = "nothing ranked"
    return rows


def tree_answers(draft: Draft) -> list[Canonical]:
    """Read an OpenAssistant tree as demonstrations: the best answer to every message of a person."""
    rows: list[Canonical] = []
    for path, where, node in _nodes(draft):
        replies = [reply for reply in _replies(node) if not reply.get("deleted")]
        if path[-1]["role"] == "user" and replies:
            best = min(replies, key=_rank)
            answer = draft.text(best, "text", f"{where}.replies")
            rows += [] if answer is None else [{"prompt": path, "response": answer}]
    if not rows and not draft.row.fatal:
        draft.row.dropped = "nothing answered"
    return rows


def tree_prompt(draft: Draft) -> list[Canonical]:
    """Read an OpenAssistant tree as a prompt: the first message."""
    for path, _, _ in _nodes(draft):
        return [{"prompt": path}]
    return []


def _rank(reply: dict[str, Json]) -> float:
    rank = reply.get("rank")
    return float(rank) if isinstance(rank, int) else math.inf


def _replies(node: dict[str, Json]) -> list[dict[str, Json]]:
    replies = node.get("replies")
    return [reply for reply in replies if isinstance(reply, dict)] if isinstance(replies, list) else []


def _nodes(draft: Draft) -> list[tuple[list[Message], str, dict[str, Json]]]:
    """Return (conversation up to here, place, node) of every message of a tree, parents first."""
    root = draft.row.value.get("prompt")
    if not isinstance(root, dict):
        draft.row.found("schema_type", "prompt", f"found {shown(root)} where a tree was wanted")
        return []
    found: list[tuple[list[Message], str, dict[str, Json]]] = []
    stack: list[tuple[list[Message], str, dict[str, Json]]] = [([], "prompt", root)]
    while stack:
        before, where, node = stack.pop()
        role = "user" if len(before) % 2 == 0 else "assistant"
        if node.get("role") != ("prompter" if role == "user" else "assistant"):
            draft.row.found("roles_not_alternating", where, f"the role is {shown(node.get('role'))}")
            continue
        text = draft.text(node, "text", where)
        if text is None:
            continue
        path = [*before, Message(role=role, content=text)]
        found.append((path, where, node))
        stack += [
            (path, f"{where}.replies[{i}]", reply) for i, reply in reversed(list(enumerate(_replies(node))))
        ]
    return found
