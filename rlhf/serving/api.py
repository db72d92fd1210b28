"""An OpenAI-compatible server: chat completions (streamed too), models, and feedback with consent."""

import hmac
import json
import logging
import queue
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from rlhf.feedback import thumbs
from rlhf.feedback.database import Feedback
from rlhf.serving import wire
from rlhf.serving.assistant import Messages, Sampling
from rlhf.serving.guardrails import Guardrails, Reply
from schemas.errors import RLHFError, UserError

logger = logging.getLogger(__name__)

CONSENT = "You agree that this conversation, this answer and your judgement are kept to train on."
"""Shown to a person before the first judgement, and kept with each."""
MAX_WAITING = 16
"""Requests that are worked on or wait for their turn at most; the next one is told to come back."""
REMEMBERED = 1_000
"""Answers that can still be judged."""
MAX_BODY = 1 << 20
_Event = dict[str, Any] | Exception | None
"""A part of a stream, what ended it early, or its end."""
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Served:
    """What is served, and how."""

    guardrails: Guardrails
    name: str
    max_new_tokens: int
    """Limit of a response, and what it may have when the request says nothing."""
    feedback: Feedback | None = None
    token: str | None = None
    """Without it anybody who reaches the port may ask: for loopback only."""


@dataclass
class _State:
    """What the server remembers while it runs."""

    seats: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(MAX_WAITING))
    answered: OrderedDict[str, tuple[Messages, list[Reply]]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def remember(self, number: str, messages: Messages, replies: list[Reply]) -> None:
        with self.lock:
            self.answered[number] = (messages, replies)
            while len(self.answered) > REMEMBERED:
                self.answered.popitem(last=False)


class _Admission:
    """Lets requests in that carry the token and are not too large."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if scope["method"] == "POST":
            if "content-length" not in headers:
                return _refusal(411, "The request does not say its length; send Content-Length.")
            if int(headers["content-length"]) > MAX_BODY:
                return _refusal(413, f"The request has more than {MAX_BODY} bytes.")
        if self._token is None or scope["path"] == "/health":
            return None
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(given.encode(), self._token.encode()):
            return None
        return _refusal(401, "Wrong or missing API key; send RLHF_SERVE_TOKEN as the bearer token.")


class _Gone(Exception):
    """The client has hung up."""


@dataclass(frozen=True)
class _Listener:
    """Passes pieces of one choice on to the stream; a client that hung up ends the sampling."""

    events: "queue.Queue[_Event]"
    gone: threading.Event
    index: int

    def __call__(self, piece: str) -> None:
        if self.gone.is_set():
            raise _Gone
        self.events.put(wire.delta(self.index, None, content=piece))


def create_app(served: Served) -> FastAPI:
    """Make the application around a loaded model."""
    app = FastAPI(title="rlhf serve", docs_url=None, redoc_url=None, openapi_url=None)
    state, born = _State(), int(time.time())
    if served.token is None:
        # A page in somebody's browser could otherwise reach the port under a name of its own (DNS rebinding).
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(_LOOPBACK))

    app.add_middleware(_Admission, token=served.token)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "model": served.name}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        entry = {"id": served.name, "object": "model", "created": born, "owned_by": "rlhf"}
        return {"object": "list", "data": [entry]}

    @app.post("/v1/chat/completions", response_model=None)
    def chat(asked: wire.ChatRequest) -> Response:
        if asked.model != served.name:
            raise HTTPException(404, f"There is no model {asked.model!r} here; this is {served.name!r}.")
        messages = [message.plain() for message in asked.messages]
        if not state.seats.acquire(blocking=False):
            raise HTTPException(503, f"{MAX_WAITING} requests are waiting; try again in a moment.")
        number, created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        samplings = _samplings(asked, served.max_new_tokens)
        if asked.stream:
            heard = _start(served, state, asked, messages, samplings, number)
            body = _stream(*heard, number, created, served.name)
            return StreamingResponse(
                body, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
            )
        try:
            replies = [served.guardrails.reply(messages, sampling) for sampling in samplings]
        finally:
            state.seats.release()
        state.remember(number, messages, replies)
        return JSONResponse(wire.completion(number, created, served.name, replies))

    if served.feedback is not None:
        _add_feedback(app, served, served.feedback, state)
    for kind in (AnyHTTPException, RequestValidationError, RLHFError):
        app.add_exception_handler(kind, _answer_error)
    return app


def _samplings(asked: wire.ChatRequest, most: int) -> list[Sampling]:
    seed = asked.seed if asked.seed is not None else secrets.randbits(62)
    wanted = asked.max_completion_tokens or asked.max_tokens or most
    return [
        Sampling(temperature=asked.temperature, max_new_tokens=min(wanted, most), seed=(seed + i) % 2**63)
        for i in range(asked.n)
    ]


def _start(
    served: Served,
    state: _State,
    asked: wire.ChatRequest,
    messages: Messages,
    samplings: list[Sampling],
    number: str,
) -> "tuple[queue.Queue[_Event], threading.Event]":
    """Let the model answer beside the stream; it stops when nobody listens any more."""
    events: queue.Queue[_Event] = queue.Queue()
    gone = threading.Event()

    def work() -> None:
        replies = []
        try:
            for index, sampling in enumerate(samplings):
                events.put(wire.delta(index, None, role="assistant", content=""))
                replies.append(served.guardrails.reply(messages, sampling, _Listener(events, gone, index)))
                events.put(wire.delta(index, replies[-1].finish_reason))
            state.remember(number, messages, replies)
            if asked.stream_options and asked.stream_options.include_usage:
                events.put(wire.usage(replies))
        except _Gone:
            logger.info("%s: the client hung up", number)
        except RLHFError as error:
            events.put(error)
        finally:
            state.seats.release()
            events.put(None)

    threading.Thread(target=work, daemon=True).start()
    return events, gone


def _stream(
    events: "queue.Queue[_Event]", gone: threading.Event, number: str, created: int, model: str
) -> Iterator[str]:
    """Give the lines of a stream of server-sent events."""
    try:
        while (event := events.get()) is not None:
            if isinstance(event, Exception):
                yield _line(wire.failure(str(event), "invalid_request_error"))
                return
            choices, used = ([], event) if "total_tokens" in event else ([event], None)
            yield _line(wire.chunk(number, created, model, choices, used))
        yield "data: [DONE]\n\n"
    finally:
        gone.set()


def _line(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def _add_feedback(app: FastAPI, served: Served, database: Feedback, state: _State) -> None:
    @app.get("/v1/feedback")
    def consent() -> dict[str, str]:
        return {"consent": CONSENT}

    @app.post("/v1/feedback")
    def judge(given: wire.FeedbackRequest) -> dict[str, bool]:
        with state.lock:
            messages, replies = state.answered.get(given.completion_id, ((), []))
        if given.choice >= len(replies):
            raise HTTPException(
                404, f"No answer {given.completion_id} with choice {given.choice} is remembered; the last {REMEMBERED} are."
            )  # fmt: skip
        kept = thumbs.record(
            database,
            prompt=list(messages),
            response=replies[given.choice].text,
            label=given.rating == "up",
            rater=given.rater,
            model=served.name,
            consent=CONSENT,
            occasion=f"{given.completion_id}-{given.choice}",
        )
        return {"kept": kept}


def _answer_error(_: Request, error: Exception) -> Response:
    if isinstance(error, AnyHTTPException):
        return _refusal(error.status_code, str(error.detail))
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "the request"
        message = (
            f"{where} is not served here; leave it out"
            if first["type"] == "extra_forbidden"
            else f"{where}: {first['msg'].removeprefix('Value error, ')}"
        )
        return _refusal(400, f"{message}.")
    return _refusal(400 if isinstance(error, UserError) else 500, str(error))


def _refusal(status: int, message: str) -> Response:
    kinds = {401: "authentication_error", 404: "not_found_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse(wire.failure(message, kind), status, headers)
