"""A real S3 server from the package index: OpenStack Swift with its s3api, one replica in one folder.

    python infra/object_server.py --port 9000 --home DIR        needs `pip install swift` and Debian's memcached

The key is S3_KEY_ID (`account:user`) with S3_SECRET, from the environment. It serves a team's first steps and the
tests; for more, use a cloud's object store.
"""

import argparse
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

SERVERS = ("account", "container", "object", "proxy")
# The order matters: `copy` after `slo` breaks CopyObject, and object versioning needs `symlink`.
PIPELINE = (
    "catch_errors healthcheck proxy-logging cache listing_formats bulk s3api tempauth copy slo dlo versioned_writes "
    "symlink proxy-logging proxy-server"
)
SECONDS_TO_START = 60


def main() -> None:
    """Serve until SIGTERM or SIGINT; end with 1 when one of the servers does."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--home", type=Path, required=True)
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    home: Path = arguments.home.absolute()
    ports = {name: _free_port() for name in ("memcached", "account", "container", "object")}
    write_configuration(home, (arguments.host, arguments.port), ports)
    os.environ["SWIFT_HOME"] = str(home)  # nothing is read from /etc/swift: each file names its own folder
    make_rings(home, ports)
    commands = [_memcached(ports["memcached"])]
    commands += [[_program(f"swift-{name}-server"), str(home / f"{name}.conf")] for name in SERVERS]
    processes = [subprocess.Popen(command) for command in commands]
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(0.5)
        sys.exit("object_server.py: one of its servers has ended; see above")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=10)


def write_configuration(home: Path, listen: tuple[str, int], ports: dict[str, int]) -> None:
    """Write one file per server; the one with the secret only its owner may read."""
    (home / "devices" / "disk").mkdir(parents=True, exist_ok=True)
    account, _, user = os.environ["S3_KEY_ID"].partition(":")
    (home / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = rlhf\nswift_hash_path_prefix = rlhf\n"
        "[storage-policy:0]\nname = default\ndefault = yes\n"
    )
    for name in ("account", "container", "object"):
        (home / f"{name}.conf").write_text(
            _default(home, "127.0.0.1", ports[name])
            + f"[pipeline:main]\npipeline = {name}-server\n[app:{name}-server]\nuse = egg:swift#{name}\n"
        )
    filters = {
        "cache": f"memcache\nmemcache_servers = 127.0.0.1:{ports['memcached']}",
        "s3api": "s3api\ns3_acl = false\nlocation = us-east-1",
        "tempauth": f"tempauth\nuser_{account}_{user} = {os.environ['S3_SECRET']} .admin",
        "versioned_writes": "versioned_writes\nallow_object_versioning = true",
        "proxy-logging": "proxy_logging",
        **{name: name for name in ("catch_errors", "healthcheck", "listing_formats", "bulk", "slo", "dlo", "copy", "symlink")},
    }  # fmt: skip
    proxy = home / "proxy.conf"
    proxy.touch(mode=0o600)
    proxy.write_text(
        _default(home, *listen)
        + f"[pipeline:main]\npipeline = {PIPELINE}\n"
        + "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\nallow_account_management = true\n"
        + "".join(f"[filter:{name}]\nuse = egg:swift#{text}\n" for name, text in filters.items())
    )


def make_rings(home: Path, ports: dict[str, int]) -> None:
    """Say where each kind of server is; a ring is made anew, since its ports are."""
    for name in ("account", "container", "object"):
        builder = home / f"{name}.builder"
        builder.unlink(missing_ok=True)
        for arguments in (
            ("create", "8", "1", "1"),
            ("add", f"r1z1-127.0.0.1:{ports[name]}/disk", "1"),
            ("rebalance",),
        ):
            command = [_program("swift-ring-builder"), str(builder), *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _default(home: Path, host: str, port: int) -> str:
    return (
        f"[DEFAULT]\nbind_ip = {host}\nbind_port = {port}\nswift_dir = {home}\ndevices = {home / 'devices'}\n"
        f"mount_check = false\nworkers = 0\nuser = {getpass.getuser()}\nlog_level = WARNING\n"
        "disable_fallocate = true\n"
    )


def _memcached(port: int) -> list[str]:
    return [_program("memcached"), "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", getpass.getuser()]


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        sys.exit(f"object_server.py: no program {name}; pip install swift, and apt-get install memcached")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
