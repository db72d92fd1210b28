"""MLflow's one exception, translated into those that say what to do."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from rlhf.adapters.patience import patiently
from schemas.errors import NotFound, TrackingUnreachable

P = ParamSpec("P")
T = TypeVar("T")


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
    return patiently(
        patience,
        lambda: ask(call, *arguments, **named),
        TrackingUnreachable,
        hopeless=lambda error: "disk is full" in str(error),
    )


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
