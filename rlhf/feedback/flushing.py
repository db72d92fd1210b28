"""Make commits durable together: one flush of SQLite's log serves every transaction that was committed before it."""

import os
import threading
from pathlib import Path


class LogFlusher:
    """Flushes the write-ahead log of one database; threads that come meanwhile share the next flush.

    SQLite itself would flush inside every commit, while all other writers wait. Here the commit only writes (which
    survives a killed process), and who committed returns once a flush that began afterwards is done (which survives
    a power cut).
    """

    def __init__(self, database: str) -> None:
        self._log = Path(f"{database}-wal")
        self._counting = threading.Lock()
        self._flushing = threading.Lock()
        self._committed = 0
        self._flushed = 0

    def flush(self) -> None:
        """Return when everything that was committed before the call is on the disk."""
        with self._counting:
            self._committed += 1
            mine = self._committed
        with self._flushing:
            if self._flushed >= mine:
                return
            with self._counting:
                covered = self._committed
            try:
                descriptor = os.open(self._log, os.O_RDWR)
            except FileNotFoundError:
                pass  # the last connection has moved the log into the database, and flushed that
            else:
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            self._flushed = covered
