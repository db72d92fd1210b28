"""What Prefect, MLflow and transformers must find in the environment before they are imported."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.settings import Settings


class Servers(BaseModel):
    """The servers that `rlhf ui` runs, as it writes them down for other commands."""

    model_config = ConfigDict(frozen=True)

    prefect: str
    """Prefect's API, `http://host:port/api`."""
    mlflow: str


def servers_file(settings: Settings) -> Path:
    """Return where `rlhf ui` writes down the servers that it runs."""
    return settings.home / "servers.json"


def running_servers(settings: Settings) -> Servers | None:
    """Return the servers of `rlhf ui` if they answer; a file left behind by a killed one is not believed."""
    try:
        servers = Servers.model_validate(json.loads(servers_file(settings).read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None
    return servers if answers(f"{servers.prefect}/health") else None


def answers(url: str) -> bool:
    """Tell whether an HTTP server answers there within two seconds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback address
            return bool(response.status < 400)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def prefect_answers() -> bool:
    """Tell whether a Prefect server is named, by `rlhf ui` or in the environment, and answers."""
    prepare(Settings())
    url = os.environ.get("PREFECT_API_URL")
    return url is not None and answers(f"{url}/health")


def prepare(settings: Settings, *, debug: bool = False) -> None:
    """Set what these libraries read at import, and make Prefect's home; what the user has set stays."""
    settings.prefect_home.mkdir(parents=True, exist_ok=True)  # Prefect makes no parents, and fails late
    defaults = {
        "RLHF_HOME": str(settings.home),
        "PREFECT_HOME": str(settings.prefect_home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # One display is enough: these draw bars of their own for files that load in milliseconds.
        "HF_HUB_DISABLE_PROGRESS_BARS": "0" if debug else "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "0" if debug else "1",
        "TRANSFORMERS_VERBOSITY": "warning" if debug else "error",
        # A first migration on a busy machine takes longer than the 20 s of Prefect's default.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        # Of the shapes of matrix products that are kept for next time; while sampling each step has another one.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512",
        # Between the tries of a stage whose services fail, in seconds.
        "PREFECT_TASKS_DEFAULT_RETRY_DELAY_SECONDS": "[10, 30]",
        # Run logs still reach Prefect's pages; the terminal shows our own display and one line per error.
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "rlhf,tasks",
    }
    if not debug:
        defaults["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    if "PREFECT_API_URL" not in os.environ and (servers := running_servers(settings)):
        defaults["PREFECT_API_URL"] = servers.prefect
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
