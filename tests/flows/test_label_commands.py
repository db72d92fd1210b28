"""`rlhf label` as its users call it: real processes, a real page."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from benchmarks.labelling import fill, free_port, sign_in
from flows.cli import app

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_HOME", str(tmp_path))
    for name in ("RLHF_FEEDBACK_URL", "RLHF_LABEL_SECRET", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def label(*arguments: str):
    return CliRunner().invoke(app, ["label", *arguments])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104 - what is refused
def test_the_page_does_not_listen_beyond_this_machine_without_a_secret(home, host):
    refused = label("serve", "--host", host)
    assert refused.exit_code == 2
    assert "RLHF_LABEL_SECRET" in refused.stderr


def test_a_secret_that_is_too_short_is_refused(home, monkeypatch):
    monkeypatch.setenv("RLHF_LABEL_SECRET", "short")
    assert label("serve").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["close", "none"], "none"), (["export", "none"], "none"), (["agreement", "none"], "none"),
        (["rater", "nobody", "--revoke"], "nobody"), (["rater", " "], "name"),
        (["import", "no-such-file"], "no-such-file"), (["export", "1", "--format", "docx"], "docx"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(home, arguments, named):
    result = label(*arguments)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert named in result.stderr


def test_rankings_go_out_and_come_in_again(home, tmp_path):
    row = {
        "prompt_id": "p",
        "prompt": "Hi?",
        "responses": ["a", "b", "c"],
        "ranks": [1, 2, 2],
        "rater": "ann",
    }
    rows = tmp_path / "mine.jsonl"
    rows.write_text(
        "".join(json.dumps({**row, "rater": name}) + "\n" for name in ("ann", "bob")), encoding="utf-8"
    )
    assert "2 rankings" in label("import", str(rows)).stdout
    for name in ("csv", "label-studio", "argilla", "jsonl"):
        out = tmp_path / f"out.{name}"
        assert label("export", "mine", "--format", name, "--out", str(out)).exit_code == 0
        assert "2 rankings" in label("import", str(out), "--format", name, "--name", name).stdout
    found = json.loads(label("agreement", "mine", "--json").stdout)
    assert found["alpha"]["value"] == 1.0
    assert [one["name"] for one in found["raters"]] == ["ann", "bob"]
    assert "Krippendorff's alpha: 1.000" in label("agreement", "mine").stdout
    assert "closed by import" in label("list").stdout


def test_the_served_page_logs_no_token_and_its_cookies_are_secure_behind_tls(home, tmp_path):
    port, log = free_port(), tmp_path / "page.log"
    (token,) = fill(f"sqlite:///{home}/feedback.db", 1, 3)
    with log.open("wb") as out:
        page = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "--debug", "label", "serve", "--port", str(port)],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        base, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{base}/health", timeout=1)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        with httpx.Client(base_url=base) as client:
            plain = client.get("/sign-in").headers["set-cookie"]
            behind_tls = client.get("/sign-in", headers={"X-Forwarded-Proto": "https"}).headers["set-cookie"]
        assert "Secure" not in plain
        assert "Secure" in behind_tls

        import asyncio

        async def visit() -> None:
            async with httpx.AsyncClient(base_url=base) as client:
                assert await sign_in(client, token)

        asyncio.run(visit())
    finally:
        page.send_signal(signal.SIGINT)
        assert page.wait(timeout=20) in (0, 130)
    assert token.partition(".")[2] not in log.read_text()
    assert (home / "label-secret").stat().st_mode & 0o777 == 0o600
    assert (home / "label-secret").read_text() not in log.read_text()
