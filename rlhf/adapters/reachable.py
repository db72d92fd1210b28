"""Whether the tracking server answers, asked before its client starts minutes of retries."""

import ssl
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from schemas.errors import ConfigError, TrackingUnreachable

_SECONDS = 5
_SERVER_ERROR = 500


def require_tracking(uri: str) -> None:
    """Raise unless `uri` is a database, or a server that answers within five seconds."""
    parts = urlsplit(uri)
    if parts.scheme in {"", "file"}:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI={uri} is a folder, which MLflow no longer writes to; a database "
            "(sqlite:////absolute/path/mlflow.db) or a server (http://...) was wanted. Unset or change it."
        )
    if parts.scheme not in {"http", "https"}:
        return
    # Without user and password: neither belongs into a message.
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    try:
        with urlopen(f"{address}/health", timeout=_SECONDS):  # noqa: S310 - http or https, as checked
            return
    except HTTPError as error:
        if error.code < _SERVER_ERROR:
            return  # it answers; whether it lets us in is for its client to find out
        found = f"answers {error.code}"
    except URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            return  # the client has certificate settings of its own (MLFLOW_TRACKING_SERVER_CERT_PATH)
        found = f"does not answer ({error.reason})"
    except OSError as error:
        found = f"does not answer ({error})"
    raise TrackingUnreachable(
        f"The MLflow server {address} {found}; it was wanted within {_SECONDS} seconds. "
        "Start it, change MLFLOW_TRACKING_URI, or unset it to use a local database."
    )
