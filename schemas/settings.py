"""Where a run keeps what it leaves and which services it talks to: from the environment, never a recipe."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _absolute_store(root: str) -> str:
    return (
        root.rstrip("/") if root.startswith("s3://") else str(_absolute(Path(root.removeprefix("file://"))))
    )


def _absolute_sqlite(uri: str) -> str:
    # A relative database would be another one in every working directory.
    path = uri.removeprefix("sqlite:///")
    return uri if path in {uri, "", ":memory:"} else f"sqlite:///{_absolute(Path(path))}"


def without_login(uri: str) -> str:
    """Return an address as it may be shown: without the user and the password that it may hold."""
    return re.sub(r"//[^/?#]*@", "//", uri, count=1)


class Settings(BaseSettings):
    """RLHF_HOME, RLHF_STORE, RLHF_FEEDBACK_URL, MLFLOW_TRACKING_URI; nothing is created here."""

    model_config = SettingsConfigDict(
        env_prefix="RLHF_", env_ignore_empty=True, frozen=True, extra="ignore", use_attribute_docstrings=True,
        validate_by_name=True, validate_by_alias=True,
    )  # fmt: skip

    home: Annotated[Path, AfterValidator(_absolute)] = Field(Path(".rlhf"), validate_default=True)
    """Holds everything that a run leaves; deleting it forgets everything."""
    store: Annotated[str, AfterValidator(_absolute_store)] = Field(
        default_factory=lambda data: str(data["home"] / "store")
    )
    """A folder, or `s3://bucket/prefix`."""
    store_patience: float = Field(90.0, ge=0)
    """Seconds for which what failed is done again while a bucket's service does not answer."""
    s3_encryption: Literal["AES256", "aws:kms"] | None = None
    """Encryption that each write to a bucket asks for; without it the bucket's own default holds."""
    s3_kms_key: str | None = None
    """Its key, for `aws:kms`."""
    tracking_uri: Annotated[str, AfterValidator(_absolute_sqlite)] = Field(
        default_factory=lambda data: f"sqlite:///{data['home'] / 'mlflow.db'}",
        validation_alias="MLFLOW_TRACKING_URI",
    )
    """MLflow's tracking server or database."""
    tracking_patience: float = Field(300.0, ge=0)
    """Seconds that a stage waits for a tracking server that does not answer any more; metrics never make it wait."""

    feedback_url: Annotated[str, AfterValidator(_absolute_sqlite)] = Field(
        default_factory=lambda data: f"sqlite:///{data['home'] / 'feedback.db'}"
    )
    """Database of rankings and raters: SQLite, or PostgreSQL for a team."""
    gpu_slots: str = ""
    """Names of Prefect's concurrency limits that a stage holds while it computes, with commas; `rlhf worker --gpus` sets it."""
    judge_url: str | None = None
    """Base URL of an OpenAI-compatible endpoint, up to `/v1`, for `evaluate.judge=llm`."""
    judge_key: SecretStr | None = None
    """Its key; endpoints on this machine often want none."""
    notify_url: SecretStr | None = None
    """Where Prefect's automations post how runs end and what the gate says; `rlhf deploy` keeps it in a block."""
    retrain_after: int = Field(500, gt=0)
    """So many more rankings by people make the event `rlhf.rankings.enough`, which starts a deployment."""
    label_secret: SecretStr | None = None
    """Signs the sessions of the labelling page; needed where it listens beyond this machine."""
    serve_token: SecretStr | None = None
    """What clients of `rlhf serve` must send as their API key; needed where it listens beyond this machine."""

    @property
    def mlflow_artifacts(self) -> Path:
        """Return the folder of MLflow's artifacts when the tracking store is a database, not a server."""
        return self.home / "mlartifacts"

    @property
    def reports(self) -> Path:
        """Return the folder of the HTML pages."""
        return self.home / "reports"

    @property
    def cache(self) -> Path:
        """Return the folder of downloads; losing it costs time only."""
        return self.home / "cache"

    @property
    def prefect_home(self) -> Path:
        """Return the folder of Prefect's database and results."""
        return self.home / "prefect"

    @property
    def locks(self) -> Path:
        """Return the folder of the locks between processes of this machine."""
        return self.home / "locks"
