"""Debian's PostgreSQL as a process of this machine's, with the databases that the servers want."""

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS_TO_START = 30


@contextmanager
def postgresql(folder: Path, port: int, password: str, databases: Path) -> Iterator[None]:
    """Run a server on `folder`, made if it is new with what `databases` creates, until the block ends."""
    programs, user = _programs(), _unprivileged()
    folder.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        os.chown(folder, user, -1)
    data = folder / "data"
    new = not data.is_dir()
    if new:
        _initialise(programs, user, folder, password)
    options = ("-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}")
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(
            [str(programs / "postgres"), "-D", str(data), *options, "-c", "max_connections=200"],
            user=user, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        _prepare(
            f"postgresql://rlhf:{password}@127.0.0.1:{port}/postgres", server, databases if new else None
        )
        yield
    finally:
        server.terminate()  # waits for clients
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            os.kill(server.pid, 2)  # "fast": rolls back what is open
            server.wait(20)


def _initialise(programs: Path, user: int | None, folder: Path, password: str) -> None:
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password, encoding="utf-8")
    if user is not None:
        os.chown(secret, user, -1)
    done = subprocess.run(
        [
            str(programs / "initdb"), "-D", str(folder / "data"), "-U", "rlhf", f"--pwfile={secret}",
            "--auth=scram-sha-256", "--data-checksums", "-E", "UTF8", "--locale=C",
        ],
        user=user, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    secret.unlink()
    if done.returncode:
        sys.exit(f"local.py: initdb failed: {done.stderr}")


def _prepare(url: str, server: "subprocess.Popen[bytes]", databases: Path | None) -> None:
    import psycopg

    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            connection = psycopg.connect(url, autocommit=True)
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit("local.py: PostgreSQL does not start; its log lies beside its data")
            time.sleep(0.1)
        else:
            break
    with connection:
        for line in databases.read_text(encoding="utf-8").splitlines() if databases else ():
            if line.startswith("CREATE"):
                connection.execute(line.encode())


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        sys.exit("local.py: PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return found[-1].parent if found else Path(str(on_path)).parent


def _unprivileged() -> int | None:
    """Return whose the server's process is to be: PostgreSQL refuses to run as root."""
    return pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else None
