import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from rlhf.serving.api import Served, create_app
from rlhf.serving.assistant import Assistant
from rlhf.serving.guardrails import Guardrails
from schemas.config.serving import GuardConfig


@pytest.fixture(scope="session")
def tiny_reward(tiny_policy: Path, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained reward model on the tiny policy's trunk."""
    from rlhf.models.reward import RewardModel

    folder = tmp_path_factory.mktemp("reward")
    reward = RewardModel.from_policy(tiny_policy, seed=1)
    reward.set_normalisation(mean=0.1, std=0.5)
    reward.save(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def assistant(tiny_policy: Path, tiny_reward: Path) -> Assistant:
    return Assistant.load(tiny_policy, tiny_reward)


@pytest.fixture
def folder(tiny_policy: Path, tmp_path: Path) -> Path:
    """A copy that a test may add to."""
    return shutil.copytree(tiny_policy, tmp_path / "policy")


Serve = Callable[..., str]


@pytest.fixture
def serve(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serve the tiny policy on a free port, and return the address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(guard: GuardConfig | None = None, **options: Any) -> str:
        decisions: list[Any] = options.pop("decisions", [])
        guardrails = Guardrails(assistant, guard or GuardConfig(), decisions.append)
        served = Served(guardrails=guardrails, name="tiny", max_new_tokens=48, **options)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = uvicorn.Server(
            uvicorn.Config(create_app(served), host="127.0.0.1", port=port, log_level="error", lifespan="off")
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        deadline = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        return f"http://127.0.0.1:{port}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(10)
