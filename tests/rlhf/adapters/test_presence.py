"""Who is alive is seen from the process itself on this machine, and from its beat on others; no clock of day decides."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rlhf.adapters import leases, presence
from rlhf.adapters.object_store import ObjectStore, open_store
from rlhf.adapters.presence import EXPIRY_SECONDS, Watch, present
from schemas.process import Process

HOLDS = """
import sys, time
from pathlib import Path
from rlhf.adapters import leases
from rlhf.adapters.object_store import open_store
from rlhf.adapters.presence import Watch, present

store = open_store(sys.argv[1], Path(sys.argv[2]))
with present(store, tracking="here", flow_run_id=None) as process:
    leases.claim(store, "ppo/key", process.token, Watch(store))
    print(process.token, flush=True)
    time.sleep(60)
"""


def elsewhere(token: str, beat: int) -> Process:
    return Process(token=token, host="another machine", pid=1, started="1", tracking="here", beat=beat)


def write(store: ObjectStore, process: Process) -> None:
    store.write(presence.key_of(process.token), process.model_dump_json().encode())


def test_a_process_is_alive_while_it_is_present(store: ObjectStore) -> None:
    watch = Watch(store)
    with present(store, tracking="here", flow_run_id="1") as process:
        assert watch.alive(process.token)
        assert presence.known(store) == (process,)
    assert not watch.alive(process.token)
    assert presence.known(store) == ()


def test_its_record_beats(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.01)
    beaten, write = threading.Event(), store.write

    def count(key: str, data: bytes) -> None:
        write(key, data)
        if Process.model_validate_json(data).beat == 3:
            beaten.set()

    monkeypatch.setattr(store, "write", count)
    with present(store, tracking="here", flow_run_id=None):
        assert beaten.wait(10)


def test_a_killed_process_is_dead_at_once_and_holds_nothing(root: str, tmp_path: Path) -> None:
    store = open_store(root, tmp_path / "cache")
    command = [sys.executable, "-c", HOLDS, root, str(tmp_path / "cache")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    token, watch = process.stdout.readline().strip(), Watch(store)
    assert watch.alive(token)
    assert leases.claim(store, "ppo/key", "mine", watch) == token
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not watch.alive(token)
    assert isinstance(leases.claim(store, "ppo/key", "mine", watch), leases.Lease)


def test_another_process_with_the_same_number_is_not_it(store: ObjectStore) -> None:
    with present(store, tracking="here", flow_run_id=None) as process:
        write(store, process.model_copy(update={"started": "1"}))
        assert process.pid == os.getpid()
        assert not Watch(store).alive(process.token)


def test_one_of_another_machine_is_dead_after_a_minute_without_a_beat(store: ObjectStore) -> None:
    clock = iter([0.0, EXPIRY_SECONDS - 1, EXPIRY_SECONDS, 2 * EXPIRY_SECONDS - 1, 2 * EXPIRY_SECONDS + 1])
    watch = Watch(store, now=lambda: next(clock))
    write(store, elsewhere("far", 5))
    assert watch.alive("far")  # at 0: seen for the first time
    assert watch.alive("far")  # a second less than a minute later
    write(store, elsewhere("far", 6))
    assert watch.alive("far")  # it has beaten
    assert watch.alive("far")
    assert not watch.alive("far")


def test_one_look_at_another_machine_judges_nobody(store: ObjectStore) -> None:
    write(store, elsewhere("far", 5))
    assert Watch(store, now=lambda: 1e9).alive("far")
