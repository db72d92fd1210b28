"""What to do with an error of a stage: try again, or say clearly what happened."""

import errno
from typing import Any, NoReturn

from schemas.errors import DiskFull, InfrastructureError, RLHFError

RETRIES = 2
"""Each after a pause; the adapters have tried for a while themselves by then."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def may_succeed_later(task: Any, run: Any, state: Any) -> bool:
    """Tell Prefect whether to try a stage again: when a service failed, never for data, settings or diverged training."""
    return isinstance(state.result(raise_on_failure=False), InfrastructureError)


def raise_clearly(error: BaseException, what: str) -> NoReturn:
    """Raise the error again; one that says in a library's own words that the disk is full, as DiskFull."""
    if isinstance(error, Exception) and not isinstance(error, RLHFError) and _disk_is_full(error):
        raise DiskFull(
            f"{what}: there is no space left to write to ({error}). Nothing half-written is used; free some, or set "
            "RLHF_HOME or RLHF_STORE to another disk, and run the same command again: finished stages are re-used."
        ) from error
    raise error


def _disk_is_full(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return True
        # safetensors, polars and sqlite have errors of their own, with the system's words.
        if any(words in str(cause) for words in ("No space left", "File too large", "disk is full")):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
