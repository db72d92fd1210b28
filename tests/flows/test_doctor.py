import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from flows import checks_machine, checks_services
from flows.cli import app
from schemas.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home")


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_machine_that_can_run_is_told_so_and_each_check_has_a_name_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_HOME", str(tmp_path))
    for name in (
        "RLHF_STORE",
        "MLFLOW_TRACKING_URI",
        "PREFECT_API_URL",
        "RLHF_JUDGE_URL",
        "RLHF_FEEDBACK_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(checks_machine, "MEMORY_GIB", 0)
    monkeypatch.setattr(checks_machine, "FREE_GIB", 0)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == 0, found
    names = [check["name"] for check in found["checks"]]
    assert len(set(names)) == len(names) == 16
    assert {
        "python",
        "versions",
        "torch",
        "devices",
        "ports",
        "prefect",
        "tracking",
        "store",
        "credentials",
    } <= set(names)
    assert "PORT" not in CliRunner().invoke(app, ["doctor"]).stdout or "taken" in result.stdout


def test_what_is_wrong_comes_with_how_to_mend_it(settings, monkeypatch):
    gone = f"http://127.0.0.1:{_closed_port()}"
    monkeypatch.setenv("PREFECT_API_URL", f"{gone}/api")
    wrong = settings.model_copy(update={"tracking_uri": gone, "judge_url": f"{gone}/v1"})
    for check in (checks_services.prefect, checks_services.tracking, checks_services.judge):
        found = check(wrong)
        assert not found.ok
        assert found.advice
    monkeypatch.setattr(checks_machine, "FREE_GIB", 10**6)
    monkeypatch.setattr(checks_machine, "MEMORY_GIB", 10**6)
    for check in (checks_machine.space, checks_machine.memory):
        assert not check(settings).ok
        assert check(settings).advice


def test_a_driver_without_a_cuda_build_is_named(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(checks_machine, "_DRIVER", tmp_path)
    monkeypatch.setattr("runpy.run_path", lambda _: {"__version__": "2.13.0+cpu", "cuda": None, "hip": None})
    found = checks_machine.torch_build(settings)
    assert not found.ok
    assert "--index-url" in found.advice


def test_a_wrong_python_is_named(settings, monkeypatch):
    monkeypatch.setattr("sys.version_info", (3, 14, 0))
    found = checks_machine.python(settings)
    assert not found.ok
    assert "PYTHON=" in found.advice


def test_a_taken_port_is_said_with_the_option_that_chooses_another(settings, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(checks_services, "PORTS", {port: "rlhf serve --port"})
        found = checks_services.ports(settings)
        assert str(port) in found.found
        assert "rlhf serve --port" in found.advice
    assert not checks_services.ports(settings).advice


def test_a_server_that_answers_is_well(settings, monkeypatch):
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        assert checks_services.prefect(settings).ok
        assert checks_services.tracking(settings.model_copy(update={"tracking_uri": url})).ok
    finally:
        server.shutdown()


def test_passwords_and_keys_are_not_shown(settings, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary-key-id")
    monkeypatch.setenv("HF_TOKEN", "canary-token")
    hidden = settings.model_copy(
        update={"tracking_uri": f"http://ann:canary-word@127.0.0.1:{_closed_port()}", "store": "s3://bucket"}
    )
    said = [
        check(hidden)
        for check in (checks_services.tracking, checks_services.credentials, checks_services.secrets)
    ]
    assert "canary" not in str(said)
    assert "AWS_ACCESS_KEY_ID" in said[1].found


@pytest.mark.integration
def test_the_store_is_read_from(bucket, settings):
    here = settings.model_copy(update={"store": f"s3://{bucket}/prefix"})
    assert checks_services.store(here).ok
    elsewhere = settings.model_copy(update={"store": "s3://no-such-bucket-at-all"})
    found = checks_services.store(elsewhere)
    assert not found.ok
    assert found.advice
