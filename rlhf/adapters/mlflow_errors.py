"""MLflow's one exception, translated into those that say what to do."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from schemas.errors import NotFound, TrackingUnreachable

P = ParamSpec("P")
T = TypeVar("T")


def ask(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call MLflow; raise NotFound or TrackingUnreachable where that is what its answer means."""
    from mlflow.exceptions import MlflowException

    try:
        return call(*arguments, **named)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise NotFound(f"MLflow: {error.message.rstrip('.')}. Check the name.") from error
        if error.error_code in {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"}:
            raise TrackingUnreachable(
                f"MLflow failed: {error.message.rstrip('.')}. See that its server or database is up "
                "(MLFLOW_TRACKING_URI), then run the same command again; finished stages are re-used."
            ) from error
        raise
