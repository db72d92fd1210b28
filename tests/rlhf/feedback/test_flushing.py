import os
import threading
import time

from rlhf.feedback.flushing import LogFlusher


def test_a_flush_that_began_before_the_commit_does_not_count(tmp_path, monkeypatch):
    (tmp_path / "db-wal").touch()
    flusher, flushes = LogFlusher(str(tmp_path / "db")), []

    def slow(_: int) -> None:
        flushes.append(time.monotonic())
        time.sleep(0.2)

    monkeypatch.setattr(os, "fsync", slow)
    returned = []

    def commit(wait: float) -> None:
        time.sleep(wait)
        began = time.monotonic()
        flusher.flush()
        returned.append((began, time.monotonic()))

    threads = [threading.Thread(target=commit, args=(wait,)) for wait in (0, 0.05, 0.06, 0.07, 0.08)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Four that came during the first flush share the second.
    assert len(flushes) == 2
    for began, ended in returned:
        assert any(began <= flush and flush + 0.2 <= ended + 0.001 for flush in flushes)


def test_a_log_that_is_gone_needs_no_flush(tmp_path):
    LogFlusher(str(tmp_path / "none")).flush()
