"""The store's tests run on both databases; PostgreSQL is started here, in a folder of its own."""

import os
import pwd
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from rlhf.feedback.batches import Plan, publish
from rlhf.feedback.database import Feedback, connect
from schemas.tables import polars_schema


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def _unprivileged() -> int | None:
    """Return whose the server's process is to be: PostgreSQL refuses to run as root."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a server that has just been started."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    user = _unprivileged()
    # Not pytest's own folder: an unprivileged user may not enter it.
    folder = Path("/tmp") / f"rlhf-postgresql-{uuid.uuid4().hex[:8]}"  # noqa: S108 - random name, mode 700
    folder.mkdir(mode=0o700)
    if user is not None:
        os.chown(folder, user, -1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"

    def run(*command: str) -> None:
        done = subprocess.run(
            command,
            user=user,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stderr + done.stdout

    run(
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-U",
        "rlhf",
        "--auth=trust",
        "-E",
        "UTF8",
        "--locale=C",
        "-N",
    )
    options = (
        f"-p {port} -c max_connections=300 -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    )
    try:
        run(
            str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start"
        )
        yield f"postgresql://rlhf@127.0.0.1:{port}"
    finally:
        subprocess.run(
            [str(binaries / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop"],
            user=user, cwd=folder, capture_output=True, check=False,
        )  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'feedback.db'}"
    server = request.getfixturevalue("postgresql")
    name = f"test_{uuid.uuid4().hex[:12]}"
    import psycopg

    # A schema of its own is as empty as a database of its own, and a hundred times as fast to make.
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")  # type: ignore[call-overload]
    return f"{server}/postgres?options=-csearch_path%3D{name}"


@pytest.fixture
def feedback(url: str) -> Iterator[Feedback]:
    store = connect(url)
    yield store
    store.close()


def candidates(number: int, size: int = 3) -> pl.DataFrame:
    rows = [
        {
            "prompt_id": f"{index:04x}",
            "prompt": [{"role": "user", "content": f"Question {index}?"}],
            "responses": [f"Response {index}.{place}" for place in range(size)],
            "tokens": [4] * size,
            "finished": [place != 1 for place in range(size)],
        }
        for index in range(number)
    ]
    return pl.DataFrame(rows, schema=polars_schema("candidates"))


@pytest.fixture
def make_candidates():
    return candidates


@pytest.fixture
def gold() -> pl.DataFrame:
    """Four questions whose first response is known to be the best."""
    return candidates(4).with_columns(
        pl.format("gold-{}", "prompt_id").alias("prompt_id"),
        pl.Series("ranks", [[1, 2, 2]] * 4, pl.List(pl.Int64)),
    )


@pytest.fixture
def make_batch(feedback: Feedback):
    def make(number: int = 4, size: int = 3, *, gold: pl.DataFrame | None = None, key: str = "key", **plan):
        return publish(feedback, key, candidates(number, size), Plan(**{"name": "batch", **plan}), gold)

    return make
