"""The wheel holds everything that the program needs besides its modules, and nothing of the tests."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "schemas", "rlhf", "recipes")
NEEDED = {
    "recipes/helpdesk.yaml",
    "recipes/qwen2.5-0.5b.yaml",
    "rlhf/conformance/conftest.py",
    "rlhf/conformance/test_tokens.py",
    "rlhf/feedback/migrations/versions/r0001_rankings.py",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], str]:
    """Return the names of the files in the wheel, and its entry points."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        points = next(name for name in names if name.endswith("entry_points.txt"))
        return names, wheel.read(points).decode()


@pytest.mark.integration
def test_every_file_of_the_packages_is_in_the_wheel(built: tuple[set[str], str]):
    there = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert there >= NEEDED
    assert any(name.endswith(".html.j2") for name in there)
    assert there <= built[0]


@pytest.mark.integration
def test_nothing_else_is_in_the_wheel(built: tuple[set[str], str]):
    assert {name.split("/")[0] for name in built[0]} - set(PACKAGES) == {"rlhf-0.1.0.dist-info"}


@pytest.mark.integration
def test_the_wheel_brings_the_command_and_the_options_of_the_conformance_suite(built: tuple[set[str], str]):
    assert "rlhf = flows.cli:main" in built[1]
    assert "rlhf.conformance.plugin = rlhf.conformance.plugin" in built[1]
