from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.settings import Settings


@pytest.fixture(autouse=True)
def in_an_empty_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RLHF_HOME", "RLHF_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_everything_lies_under_the_working_directory_and_nothing_is_created(
    tmp_path: Path,
) -> None:
    settings = Settings()
    assert settings.home == tmp_path / ".rlhf"
    assert settings.store == str(tmp_path / ".rlhf/store")
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/.rlhf/mlflow.db"
    for folder in (settings.mlflow_artifacts, settings.reports, settings.cache, settings.prefect_home):
        assert folder.parent == settings.home
    assert list(tmp_path.iterdir()) == []


def test_the_home_moves_what_is_not_set_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLHF_HOME", "elsewhere")
    monkeypatch.setenv("RLHF_STORE", "s3://bucket/prefix/")
    settings = Settings()
    assert settings.home == tmp_path / "elsewhere"
    assert settings.store == "s3://bucket/prefix"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/elsewhere/mlflow.db"


def test_relative_places_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLHF_STORE", "artifacts")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    settings = Settings()
    assert settings.store == str(tmp_path / "artifacts")
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/mine.db"


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:5000", "postgresql://host/mlflow", "sqlite:////abs/mlflow.db"]
)
def test_absolute_tracking_uris_are_left_alone(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert Settings().tracking_uri == uri


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLHF_HOME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert Settings().home == tmp_path / ".rlhf"
    assert Settings().tracking_uri.endswith(".rlhf/mlflow.db")


def test_settings_are_frozen_and_hashable() -> None:
    settings = Settings()
    assert hash(settings) == hash(Settings())
    with pytest.raises(ValidationError, match="frozen"):
        settings.home = Path("/")  # type: ignore[misc]
