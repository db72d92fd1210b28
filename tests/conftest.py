"""A tokenizer and a policy small enough to be built anew; a bucket that answers as S3 does."""

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from schemas.config.models import ModelShape

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Heavy imports stay inside the fixtures: tests that need no model do not pay for them.

TEXTS = [
    "When do you open? We are open from nine to five.",
    "What does a kettle cost? The kettle costs twelve euros.",
    "Thank you for asking. The user said that the assistant was kind.",
]


@pytest.fixture(autouse=True)
def tracking_is_forgotten() -> Iterator[None]:
    """`mlflow.set_tracking_uri` sets a variable, too, which a process that a later test starts would inherit."""
    name = "MLFLOW_TRACKING_URI"
    before = os.environ.get(name)
    yield
    os.environ.pop(name, None)
    if before is not None:
        os.environ[name] = before


@pytest.fixture(scope="session")
def parse() -> Callable[[str], None]:
    """Check a line such as `rlhf run helpdesk --json` by the command line's own definitions, and run nothing."""
    import typer

    from flows.cli import app

    def parse(line: str) -> None:
        program, *words = shlex.split(line, comments=True)
        assert program == "rlhf", line
        command, context = typer.main.get_command(app), None
        try:
            while hasattr(command, "commands") and words and not words[0].startswith("-"):
                context = command.make_context(program, [], parent=context, resilient_parsing=True)
                program, *words = words
                command = command.commands[program]
            if "--help" not in words:
                command.make_context(program, words, parent=context)
        except (Exception, SystemExit) as error:  # whatever it is, the line is no command
            pytest.fail(f"`{line}` is no command: {error!r}")

    return parse


@pytest.fixture(scope="session")
def tokenizer() -> "PreTrainedTokenizerFast":
    from rlhf.models.bpe import train_tokenizer

    return train_tokenizer(TEXTS, ModelShape(vocab_size=320))


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory, tokenizer: "PreTrainedTokenizerFast") -> Path:
    """A folder with an untrained two-layer Llama; its output is sharpened, so that responses differ clearly."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlhf.models.loading import save_model

    folder = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=320,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=48,
            max_position_embeddings=128,
            initializer_range=0.2,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    import boto3

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "canary-key-id",
        "AWS_SECRET_ACCESS_KEY": "canary-secret",
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    # A bucket name takes no underscore, and is new for each test.
    name = "b" + str(abs(hash(str(tmp_path))))
    boto3.client("s3").create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    return name


class Breakable(ThreadingHTTPServer):
    """A server before another one that answers 503 while `broken`, each time after `delay` seconds, and cuts the next answer off after `cut` bytes."""

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target = target.removeprefix("http://")
        self.broken = False
        self.code = "SlowDown"
        """What it says while broken; of a throttled request the client thinks otherwise than of a failed one."""
        self.delay = 0.0
        self.cut: int | None = None
        self.ranges: list[str] = []
        """What parts of objects were asked for."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Breakable

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.server.delay)
        if self.server.broken:
            answer = f"<Error><Code>{self.server.code}</Code><Message>Later.</Message></Error>".encode()
            self.send_response(503)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            return
        if self.command == "GET" and "Range" in self.headers:
            self.server.ranges.append(self.headers["Range"])
        connection = HTTPConnection(self.server.target)
        connection.request(self.command, self.path, body, dict(self.headers))
        found = connection.getresponse()
        content = found.read()
        self.send_response(found.status)
        for name, value in found.getheaders():
            if name.lower() not in {"connection", "transfer-encoding", "date", "server", "content-length"}:
                self.send_header(name, value)
        length = found.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        cut = self.server.cut
        if cut is not None and len(content) > cut:
            content, self.server.cut, self.close_connection = content[:cut], None, True
        self.wfile.write(content)
        connection.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815 - the names are http.server's

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def breakable(s3_endpoint: str) -> Iterator[Breakable]:
    with Breakable(s3_endpoint) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 500 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def enlarge() -> Callable[[Path], None]:
    """Return what gives that file system room."""
    return lambda folder: (
        subprocess.run(["mount", "-o", "remount,size=200m", str(folder)], check=True) and None
    )
