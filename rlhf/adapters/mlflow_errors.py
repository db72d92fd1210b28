"""MLflow's one exception, translated into those that say what to do."""

import logging
import random
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from schemas.errors import NotFound, TrackingUnreachable

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between two calls, each shortened by up to a half so that many runs do not come back at once."""


def ask(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call MLflow; raise NotFound or TrackingUnreachable where that is what its answer means."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        return call(*arguments, **named)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise NotFound(f"MLflow: {error.message.rstrip('.')}. Check the name.") from error
        if error.error_code in {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"}:
            raise _unreachable(error.message) from error
        raise
    except RequestException as error:  # of artifacts, which go another way
        raise _unreachable(str(error)) from error


def ask_patiently(patience: float, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call MLflow again and again for up to `patience` seconds while it does not answer; then raise as `ask` does."""
    deadline, tries = time.monotonic() + patience, 0
    while True:
        try:
            return ask(call, *arguments, **named)
        except TrackingUnreachable as error:
            if time.monotonic() >= deadline or "disk is full" in str(error):
                raise
            if not tries:
                logger.warning("the stage waits for the tracking server: %s", error)
        time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)] * random.uniform(0.5, 1.0))
        tries += 1


def write_row(write: Callable[P, None], *arguments: P.args, **named: P.kwargs) -> None:
    """Set a tag or an alias, and once more where another process has inserted the same row in between."""
    from mlflow.exceptions import MlflowException

    try:
        write(*arguments, **named)
    except MlflowException as error:
        if "unique constraint" not in error.message.lower():
            raise
        write(*arguments, **named)


def _unreachable(message: str) -> TrackingUnreachable:
    return TrackingUnreachable(
        f"MLflow failed: {message.rstrip('.')}. See that its server or database is up "
        "(MLFLOW_TRACKING_URI), then run the same command again; finished stages are re-used."
    )
