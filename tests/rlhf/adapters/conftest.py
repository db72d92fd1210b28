from pathlib import Path

import pytest

from rlhf.adapters.object_store import ObjectStore, open_store
from rlhf.adapters.tracking import Tracking, connect
from schemas.settings import Settings


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "the store")
    return f"s3://{request.getfixturevalue('bucket')}/some/prefix"


@pytest.fixture
def store(root: str, tmp_path: Path) -> ObjectStore:
    return open_store(root, tmp_path / "cache")


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    return Settings(home=home, store=str(home / "store"), tracking_uri=f"sqlite:///{home}/mlflow.db")


@pytest.fixture(scope="session")
def tracking(settings: Settings) -> Tracking:
    return connect(settings, "helpdesk")
