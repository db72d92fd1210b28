"""What happens when somebody ends a command."""

import os
import signal
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


def stop_in_order() -> None:
    """Have SIGTERM and a closed terminal unwind the command as Ctrl-C does: state is kept, servers are stopped."""
    for number in _ENDING:
        signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    for later in _ENDING:
        signal.signal(later, signal.SIG_IGN)  # a second one must not interrupt the clearing up
    # Not by print, which may be what was interrupted.
    os.write(2, b"terminated; every finished stage is kept, and the same command continues from there\n")
    raise SystemExit(128 + number)
