"""The part of OpenAI's chat interface that is served; what is not served is refused, never ignored."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rlhf.serving.guardrails import Reply

_ROLES = {"developer": "system"}


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TextPart(_Wire):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(_Wire):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """Return it as the chat template takes it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": _ROLES.get(self.role, self.role), "content": text}


class StreamOptions(_Wire):
    """What a stream ends with."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(_Wire):
    """POST /v1/chat/completions."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    temperature: float = Field(1.0, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1, le=16)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    top_p: float | None = None

    @field_validator("messages")
    @classmethod
    def _ends_with_the_user(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        if messages[-1].role != "user":
            raise ValueError(f"the last message is the {messages[-1].role}'s; wanted the user's")
        return messages

    @field_validator("top_p")
    @classmethod
    def _whole_distribution(cls, top_p: float | None) -> float | None:
        if top_p not in (None, 1, 1.0):
            raise ValueError("top_p is not served; leave it out and lower the temperature")
        return top_p


class FeedbackRequest(_Wire):
    """POST /v1/feedback."""

    completion_id: str
    choice: int = Field(0, ge=0)
    rating: Literal["up", "down"]
    consent: Literal[True]
    """The person has agreed to the sentence that GET /v1/feedback gives."""
    rater: str = Field("anonymous", min_length=1, max_length=200)


def completion(number: str, created: int, model: str, replies: list[Reply]) -> dict[str, Any]:
    """Return a chat.completion object."""
    return {
        "id": number,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": reply.text, "refusal": None},
                "logprobs": None,
                "finish_reason": reply.finish_reason,
            }
            for index, reply in enumerate(replies)
        ],
        "usage": usage(replies),
    }


def chunk(
    number: str, created: int, model: str, choices: list[dict[str, Any]], used: dict[str, int] | None = None
) -> dict[str, Any]:
    """Return a chat.completion.chunk object."""
    return {
        "id": number,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": choices,
        "usage": used,
    }


def delta(index: int, finish_reason: str | None, **said: str) -> dict[str, Any]:
    """Return one choice of a chunk."""
    return {"index": index, "delta": said, "logprobs": None, "finish_reason": finish_reason}


def usage(replies: list[Reply]) -> dict[str, int]:
    """Count tokens; the prompt of several choices counts once."""
    prompt = max((reply.prompt_tokens for reply in replies), default=0)
    drawn = sum(reply.tokens for reply in replies)
    return {"prompt_tokens": prompt, "completion_tokens": drawn, "total_tokens": prompt + drawn}


def failure(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """Return an error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
