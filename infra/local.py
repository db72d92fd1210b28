"""Run what compose.yaml describes as plain processes on this machine: the same commands, settings and secrets.

    python infra/local.py [--home .rlhf/local]

It needs Debian's PostgreSQL. The S3 server is Swift where `--swift` names the bin folder of an environment that has it,
else moto's, which forgets everything when it stops. `client.env` in the home folder lets commands reach the servers.
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from entrypoint import read_secrets
from local_postgresql import postgresql
from make_secrets import make_secrets

ROOT = Path(__file__).resolve().parents[1]
PORTS = {"postgres": 5432, "s3": 9000, "mlflow": 5000, "prefect": 4200, "label": 8700, "worker": 8080}
SECONDS_TO_START, SECONDS_TO_STOP = 120, 20
HANDED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "USER", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Machine:
    """Where on this machine the things are that compose.yaml names."""

    home: Path
    ports: dict[str, int]
    swift: Path | None

    def here(self, text: str, service: dict[str, Any]) -> str:
        """Return a value of compose.yaml with its hosts, ports and paths turned into this machine's."""
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        by_port = {str(port): str(self.ports[name]) for name, port in PORTS.items()}
        if text in by_port:
            return by_port[text]
        hosts = "|".join((*PORTS, "localhost", r"127\.0\.0\.1"))
        text = re.sub(
            rf"\b(?:{hosts}):(\d+)",
            lambda found: f"127.0.0.1:{by_port[found[1]]}",
            text.replace("0.0.0.0", "127.0.0.1"),  # noqa: S104 - it is what goes
        )
        folders = {"/run/secrets": "secrets", "/tmp": "tmp"}  # noqa: S108 - of a container
        for volume in service.get("volumes", []):
            name, _, target = volume.partition(":")
            folders[target] = name
        paths = {there: str(self.home / name) for there, name in folders.items()} | {"/app": str(ROOT)}
        wanted = "|".join(sorted(map(re.escape, paths), reverse=True))
        return re.sub(rf"(?<![\w/.])({wanted})\b", lambda found: paths[found[1]], text)

    def environment(self, service: dict[str, Any]) -> dict[str, str]:
        """Return the variables of a service, beside the few that any program wants."""
        ours = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
        ours |= {"PYTHONPATH": str(ROOT), "RLHF_SECRETS": str(self.home / "secrets"), "NO_PROXY": "127.0.0.1"}
        return ours | {
            name: self.here(value, service) for name, value in service.get("environment", {}).items()
        }

    def command(self, name: str, service: dict[str, Any]) -> list[str]:
        """Return how a service is started, by the images' entry point."""
        words = [self.here(word, service) for word in service["command"]]
        if name == "s3" and self.swift is None:
            words = ["python", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.ports["s3"])]
        python = str(self.swift / "python") if name == "s3" and self.swift else sys.executable
        return [
            python,
            str(ROOT / "infra" / "entrypoint.py"),
            *(python if word == "python" else word for word in words),
        ]

    def health(self, name: str, service: dict[str, Any]) -> str | None:
        """Return the address that answers once a service can be used; None for one that runs to its end."""
        if name == "s3" and self.swift is None:
            return f"http://127.0.0.1:{self.ports['s3']}/moto-api/"
        check = service.get("healthcheck")
        return self.here(check["test"][-1], service) if check else None


def main() -> None:
    """Start the services in the order that they depend on each other, and stop them when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("RLHF_HOME", ".rlhf")) / "local")
    parser.add_argument("--swift", type=Path, help="bin folder of an environment with swift")
    parser.add_argument("--free-ports", action="store_true", help="not those of compose.yaml")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    home: Path = arguments.home.absolute()
    for folder in ("secrets", "logs", "tmp", "work/prefect", "labelling/prefect", "objects"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    machine = Machine(home, _ports(home / "ports.json", free=arguments.free_ports), arguments.swift)
    make_secrets(home / "secrets", postgres=f"127.0.0.1:{machine.ports['postgres']}")
    services = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    services = {name: service for name, service in services.items() if "profiles" not in service}
    order = TopologicalSorter({name: service.get("depends_on", {}) for name, service in services.items()})
    order.prepare()
    with ExitStack() as stack:
        running: dict[str, subprocess.Popen[bytes]] = {}
        stack.callback((home / "client.env").unlink, missing_ok=True)
        while order.is_active():
            ready = order.get_ready()
            for name in ready:
                if name == "postgres":
                    password = (home / "secrets" / "postgres_password").read_text(encoding="utf-8")
                    sql = ROOT / "infra" / "docker" / "databases.sql"
                    stack.enter_context(
                        postgresql(home / "database", machine.ports["postgres"], password, sql)
                    )
                else:
                    running[name] = stack.enter_context(_process(machine, name, services[name]))
            for name in ready:
                if name in running:
                    _await(machine, name, services[name], running[name])
            order.done(*ready)
        _write_client(machine, services["worker"])
        print(f"everything runs; in another terminal: set -a; . {home}/client.env", flush=True)
        _watch(
            machine,
            {name: process for name, process in running.items() if machine.health(name, services[name])},
        )


@contextmanager
def _process(machine: Machine, name: str, service: dict[str, Any]) -> Iterator["subprocess.Popen[bytes]"]:
    with (machine.home / "logs" / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            machine.command(name, service), env=machine.environment(service), cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        wanted = getattr(signal, service.get("stop_signal", "SIGTERM"))
        for number in (wanted, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(SECONDS_TO_STOP)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _await(machine: Machine, name: str, service: dict[str, Any], process: "subprocess.Popen[bytes]") -> None:
    url, deadline = machine.health(name, service), time.monotonic() + SECONDS_TO_START
    while not (_answers(url) if url else process.poll() == 0):
        if process.poll() not in {None, 0} or time.monotonic() > deadline:
            _fail(machine, name)
        time.sleep(0.2)


def _watch(machine: Machine, running: dict[str, "subprocess.Popen[bytes]"]) -> None:
    try:
        while True:
            for name, process in running.items():
                if process.poll() is not None:
                    _fail(machine, name)
            time.sleep(1)
    except KeyboardInterrupt:
        return


def _fail(machine: Machine, name: str) -> None:
    log = machine.home / "logs" / f"{name}.log"
    end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    sys.exit(f"local.py: {name} has ended or does not answer; {log} ends:\n{end}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - loopback
            return bool(response.status < 400)
    except OSError:
        return False


def _write_client(machine: Machine, worker: dict[str, Any]) -> None:
    """Write the variables by which any command reaches the servers; they hold secrets."""
    shared = machine.environment(worker)
    names = sorted(set(shared) - set(HANDED_ON) - {"RLHF_SECRETS", "PYTHONPATH"})
    found = read_secrets({name: shared[name] for name in names}, machine.home / "secrets")
    path = machine.home / "client.env"
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}='{value}'\n" for name, value in sorted(found.items())), encoding="utf-8")


def _ports(file: Path, *, free: bool) -> dict[str, int]:
    """Return the ports of the last start, which the secrets name, or new ones."""
    if file.is_file():
        known: dict[str, int] = json.loads(file.read_text(encoding="utf-8"))
        return known
    found = {name: _free_port() for name in PORTS} if free else PORTS
    file.write_text(json.dumps(found), encoding="utf-8")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
