"""One layer around a model: rules for what comes in, a choice by score, rules for what goes out; all are logged."""

import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rlhf.serving.assistant import Answer, Assistant, Messages, OnText, Sampling
from schemas.config.serving import GuardConfig
from schemas.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What the guardrails did with one request; the words themselves are not kept, only their digest."""

    action: Literal["allowed", "refused"]
    rule: str
    """The rule that decided: `prompt length`, `blocked input`, `score`, `blocked output`, or `none`."""
    prompt: str
    """sha256 of the conversation."""
    drawn: int
    """Responses that the model gave."""
    score: float | None
    """Of the response that was chosen."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is said to the client."""

    text: str
    finish_reason: Literal["stop", "length", "content_filter"]
    prompt_tokens: int
    tokens: int
    decision: Decision


class Guardrails:
    """Answers through the rules; one request at a time reaches the model."""

    def __init__(
        self, assistant: Assistant, config: GuardConfig, log: Callable[[Mapping[str, object]], None]
    ) -> None:
        if config.needs_reward and not assistant.scores:
            raise ConfigError("best_of and min_score need a reward model; name one with --reward.")
        self._assistant = assistant
        self._config = config
        self._log = log
        self._turn = threading.Lock()

    def reply(self, messages: Messages, sampling: Sampling, on_text: OnText | None = None) -> Reply:
        """Answer a conversation; `on_text` hears it piece by piece where no rule has to see the whole first."""
        started = time.monotonic()
        config = self._config
        whole = config.needs_reward or bool(config.blocked_output)
        if rule := self._forbidden_input(messages):
            return self._refuse(messages, rule, None, 0, started, on_text)
        with self._turn:
            answers = self._assistant.answer(
                messages, sampling, n=config.best_of, on_text=None if whole else on_text
            )
        best = max(answers, key=lambda answer: answer.score if answer.score is not None else 0.0)
        if config.min_score is not None and (best.score is None or best.score < config.min_score):
            return self._refuse(messages, "score", best, len(answers), started, on_text)
        if _found(config.blocked_output, best.text):
            return self._refuse(messages, "blocked output", best, len(answers), started, on_text)
        if whole and on_text:
            on_text(best.text)
        return Reply(
            text=best.text,
            finish_reason="stop" if best.finished else "length",
            prompt_tokens=best.prompt_tokens,
            tokens=best.tokens,
            decision=self._decide("allowed", "none", messages, best, len(answers), started),
        )

    def _forbidden_input(self, messages: Messages) -> str | None:
        if sum(len(message["content"]) for message in messages) > self._config.max_prompt_chars:
            return "prompt length"
        asked = (message["content"] for message in messages if message["role"] == "user")
        return "blocked input" if any(_found(self._config.blocked_input, text) for text in asked) else None

    def _refuse(
        self, messages: Messages, rule: str, best: Answer | None, drawn: int, started: float, on_text: OnText | None
    ) -> Reply:  # fmt: skip
        if on_text:
            on_text(self._config.refusal)
        return Reply(
            text=self._config.refusal,
            finish_reason="content_filter",
            prompt_tokens=best.prompt_tokens if best else 0,
            tokens=best.tokens if best else 0,
            decision=self._decide("refused", rule, messages, best, drawn, started),
        )

    def _decide(
        self,
        action: Literal["allowed", "refused"],
        rule: str,
        messages: Messages,
        best: Answer | None,
        drawn: int,
        started: float,
    ) -> Decision:
        decision = Decision(
            action=action,
            rule=rule,
            prompt=hashlib.sha256(json.dumps(list(messages)).encode()).hexdigest(),
            drawn=drawn,
            score=best.score if best else None,
            seconds=round(time.monotonic() - started, 4),
        )
        self._log(asdict(decision))
        return decision


class DecisionLog:
    """Appends decisions to a file, one JSON object per line."""

    def __init__(self, path: Path, model: str) -> None:
        self._path = path
        self._model = model
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, decision: Mapping[str, object]) -> None:
        """Keep one decision, with the time and the model."""
        line = json.dumps({"time": time.time(), "model": self._model, **decision})
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        logger.info("%s (%s)", decision["action"], decision["rule"])


def _found(patterns: tuple[str, ...], text: str) -> bool:
    return any(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)
