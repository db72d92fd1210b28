"""Whether the tracking server answers, asked before its client starts minutes of retries."""

import socket
import ssl
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from schemas.errors import ConfigError, TrackingUnreachable
from schemas.settings import without_login

_SECONDS = 5
_SERVER_ERROR = 500
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


def require_tracking(uri: str) -> None:
    """Raise unless `uri` is a database, or a server that answers within five seconds."""
    parts = urlsplit(uri)
    if parts.scheme in {"", "file"}:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI={without_login(uri)} is a folder, which MLflow no longer writes to; a database "
            "(sqlite:////absolute/path/mlflow.db) or a server (http://...) was wanted. Unset or change it."
        )
    if parts.scheme not in {"http", "https"}:
        _require_database(uri)
        return
    address = without_login(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}")
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


def _require_database(uri: str) -> None:
    """Raise unless a database server takes connections: MLflow itself would try for a hundred seconds."""
    parts = urlsplit(uri)
    port = _DATABASE_PORTS.get(parts.scheme.partition("+")[0])
    if port is None or parts.hostname is None:
        return
    try:
        socket.create_connection((parts.hostname, parts.port or port), timeout=_SECONDS).close()
    except OSError as error:
        raise TrackingUnreachable(
            f"The database {without_login(uri)} does not answer ({error}); it was wanted within {_SECONDS} seconds. "
            "Start it, change MLFLOW_TRACKING_URI, or unset it to use a local database."
        ) from error
