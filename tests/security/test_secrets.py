"""Passwords and keys do not come back in messages, pages or command lines. (`tests/infra/test_local.py`: nor in runs.)"""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import RLHFError
from schemas.settings import Settings, without_login

ROOT = Path(__file__).parents[2]
CANARY = "canary-4f1c7e"


def told(attempt: Callable[[], object]) -> str:
    """Return everything that an error says: its message, its causes, its traceback."""
    with pytest.raises(RLHFError) as failed:
        attempt()
    return "".join(traceback.format_exception(failed.value)) + repr(failed.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (f"postgresql://rlhf:{CANARY}@db:5432/x", "postgresql://db:5432/x"),
        (f"http://rlhf:{CANARY}@host/api?a=b@c", "http://host/api?a=b@c"),
        (f"https://{CANARY}@host", "https://host"),
        (f"postgresql://rlhf:{CANARY}@x@db/y", "postgresql://db/y"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
    ],
)
def test_an_address_is_shown_without_its_login(uri: str, shown: str) -> None:
    assert without_login(uri) == shown


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_a_feedback_database_that_does_not_answer(scheme: str) -> None:
    from rlhf.feedback.database import connect

    assert CANARY not in told(lambda: connect(f"{scheme}://rlhf:{CANARY}@127.0.0.1:9/feedback"))


@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg", "file"])
def test_a_tracking_server_that_does_not_answer(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhf.adapters.tracking import connect

    monkeypatch.setenv("RLHF_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://rlhf:{CANARY}@127.0.0.1:9/mlflow")
    assert CANARY not in told(lambda: connect(Settings(), "x"))


def test_a_bucket_that_refuses(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlhf.adapters.object_store import open_store

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", CANARY)
    store = open_store("s3://no-such-bucket-here/x", tmp_path)
    assert CANARY not in told(lambda: store.write("a", b"b"))


def test_settings_do_not_print_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUDGE_KEY", "LABEL_SECRET", "SERVE_TOKEN", "NOTIFY_URL"):
        monkeypatch.setenv(f"RLHF_{name}", CANARY)
    settings = Settings()
    assert CANARY not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.integration
@pytest.mark.parametrize("command", [["doctor"], ["models"], ["label", "list"], ["run", "micro"], ["deploy"]])
def test_commands_that_fail_keep_the_secrets_of_their_environment(command: list[str], tmp_path: Path) -> None:
    canaries = {
        "RLHF_FEEDBACK_URL": f"postgresql://rlhf:{CANARY}@127.0.0.1:9/feedback",
        "MLFLOW_TRACKING_URI": f"http://rlhf:{CANARY}@127.0.0.1:9",
        "MLFLOW_TRACKING_PASSWORD": CANARY, "MLFLOW_TRACKING_TOKEN": CANARY, "PREFECT_API_AUTH_STRING": f"a:{CANARY}",
        "PREFECT_API_URL": "http://127.0.0.1:9/api", "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_SESSION_TOKEN": CANARY,
        "RLHF_JUDGE_KEY": CANARY, "RLHF_LABEL_SECRET": CANARY * 2, "RLHF_SERVE_TOKEN": CANARY, "RLHF_NOTIFY_URL": f"http://x/{CANARY}",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *command, "--debug"], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=120, env={**os.environ, **canaries, "RLHF_HOME": str(tmp_path)},
    )  # fmt: skip
    assert CANARY not in done.stdout + done.stderr
    assert (done.stdout + done.stderr).strip()
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file
