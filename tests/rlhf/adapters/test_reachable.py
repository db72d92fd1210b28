import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from rlhf.adapters.reachable import require_tracking
from schemas.errors import ConfigError, TrackingUnreachable


class Answering(BaseHTTPRequestHandler):
    code: ClassVar[int] = 200

    def do_GET(self) -> None:
        self.send_response(self.code)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("code", [200, 401, 404])
def test_a_server_that_answers_is_enough(
    server: HTTPServer, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answering, "code", code)
    require_tracking(f"http://127.0.0.1:{server.server_port}")


def test_a_server_in_trouble_is_not(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answering, "code", 503)
    with pytest.raises(TrackingUnreachable, match="answers 503"):
        require_tracking(f"http://127.0.0.1:{server.server_port}")


def test_a_server_that_is_down_is_refused_at_once_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    started = time.monotonic()
    with pytest.raises(
        TrackingUnreachable, match=r"http://127\.0\.0\.1:9 does not answer.*MLFLOW_TRACKING_URI"
    ) as caught:
        require_tracking("http://ann:canary@127.0.0.1:9")
    assert time.monotonic() - started < 6
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///var/mlruns"])
def test_a_folder_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        require_tracking(uri)


@pytest.mark.parametrize("uri", ["sqlite:////var/mlflow.db", "mysql+pymysql:///mlflow"])
def test_a_database_needs_no_server(uri: str) -> None:
    require_tracking(uri)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "mysql+pymysql"])
def test_a_database_server_that_does_not_answer_is_named_at_once_and_without_its_password(
    scheme: str,
) -> None:
    with pytest.raises(TrackingUnreachable, match=r"127\.0\.0\.1:9/mlflow does not answer") as refused:
        require_tracking(f"{scheme}://user:canary@127.0.0.1:9/mlflow")
    assert "canary" not in str(refused.value)
