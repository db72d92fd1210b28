"""Sessions, write tokens, headers and the brake on sign-in of the labelling page."""

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "rlhf_label"
SESSION_SECONDS = 12 * 3600
MAX_FAILURES = 8
WINDOW_SECONDS = 300.0
_MOST_ADDRESSES = 10_000

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True)
class Session:
    """Who is signed in (`annotator` 0: nobody yet), and the number that their write tokens are made from."""

    annotator: int
    token_id: str
    nonce: str


class Sessions:
    """Signs session cookies and write tokens; nothing about them is kept on the server."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"rlhf labelling page " + secret.encode()).digest()

    def new(self, annotator: int = 0, token_id: str = "") -> Session:
        """Begin a session with a number of its own."""
        return Session(annotator, token_id, secrets.token_urlsafe(16))

    def cookie(self, session: Session) -> str:
        """Return the signed cookie of a session that begins now."""
        body = f"{session.annotator}.{session.token_id}.{session.nonce}.{int(time.time())}"
        return f"{body}.{self._sign('cookie', body)}"

    def read(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie that we signed less than `SESSION_SECONDS` ago."""
        body, _, signature = (cookie or "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("cookie", body).encode()):
            return None
        annotator, token_id, nonce, began = body.split(".")
        if time.time() - int(began) > SESSION_SECONDS:
            return None
        return Session(int(annotator), token_id, nonce)

    def csrf(self, session: Session) -> str:
        """Return the token that every write of this session must carry."""
        return self._sign("csrf", f"{session.annotator}.{session.nonce}")

    def is_csrf(self, session: Session, token: str) -> bool:
        """Tell in constant time whether a write comes from one of our own pages."""
        return hmac.compare_digest(token.encode(), self.csrf(session).encode())

    def _sign(self, purpose: str, body: str) -> str:
        return hmac.new(self._key, f"{purpose}:{body}".encode(), hashlib.sha256).hexdigest()


class Brake:
    """Refuses further attempts after several failures of one address within some minutes."""

    def __init__(self) -> None:
        self._failures: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def is_on(self, address: str) -> bool:
        """Tell whether this address has to wait."""
        with self._lock:
            return len(self._recent(address)) >= MAX_FAILURES

    def failed(self, address: str) -> None:
        """Count a failure."""
        with self._lock:
            if len(self._failures) >= _MOST_ADDRESSES:
                self._failures.clear()
            self._failures.setdefault(address, self._recent(address)).append(time.monotonic())

    def _recent(self, address: str) -> deque[float]:
        times = self._failures.get(address, deque())
        while times and time.monotonic() - times[0] > WINDOW_SECONDS:
            times.popleft()
        return times


class SecurityHeaders:
    """Adds the headers to every response; only static files may be kept by the browser."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
