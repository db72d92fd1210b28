"""Docker Compose itself reads the file; the rest is what it does not ask for: secrets, users, loopback, health."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SECRETS = {
    "postgres_password", "prefect_database", "prefect_auth", "mlflow_database", "mlflow_auth.ini",
    "mlflow_admin_password", "mlflow_password", "mlflow_flask_key", "feedback_database", "s3_key_id", "s3_secret",
    "label_secret",
}  # fmt: skip


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets") / "made"
    command = [sys.executable, "infra/make_secrets.py", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    subprocess.run(command, cwd=ROOT, check=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    return folder


@pytest.fixture(scope="module")
def services(secrets: Path, program: Callable[[str], str]) -> dict[str, Any]:
    """What Docker Compose makes of the file: defaults filled in, merges done."""
    command = [
        program("docker-compose"),
        "-f",
        "infra/compose.yaml",
        "--profile",
        "gpu",
        "config",
        "--format",
        "json",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "RLHF_SECRETS_DIR": str(secrets)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    assert {Path(secret["file"]).name for secret in read["secrets"].values()} == SECRETS
    assert all(Path(secret["file"]).is_file() for secret in read["secrets"].values())
    assert read["networks"]["state"]["internal"]
    found: dict[str, Any] = read["services"]
    return found


def test_everything_that_a_team_needs_is_there(services: dict[str, Any]) -> None:
    assert set(services) == {
        "postgres", "s3", "mlflow", "prefect", "bootstrap", "label", "worker", "worker-gpu",
    }  # fmt: skip
    devices = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert [(device["driver"], device["capabilities"]) for device in devices] == [("nvidia", ["gpu"])]
    assert services["worker-gpu"]["profiles"] == ["gpu"]


def test_secrets_are_files_and_never_values(services: dict[str, Any], secrets: Path) -> None:
    values = {path.read_text() for path in secrets.iterdir()} - {"rlhf:pipeline"}
    assert not [value for value in values if value in json.dumps(services)]
    for name, service in services.items():
        given = {f"/run/secrets/{secret['source']}" for secret in service.get("secrets", [])}
        named = {
            value for value in service.get("environment", {}).values() if value.startswith("/run/secrets/")
        }
        assert named == given, name
        for variable in service.get("environment", {}):
            secret = re.search("PASSWORD|SECRET|KEY|AUTH_STRING|DATABASE|FEEDBACK_URL", variable)
            assert not secret or variable.endswith("_FILE"), (name, variable)


def test_pages_listen_on_loopback_and_databases_nowhere(services: dict[str, Any]) -> None:
    published = {
        name: [port["host_ip"] for port in service["ports"]]
        for name, service in services.items()
        if "ports" in service
    }
    assert published == {"mlflow": ["127.0.0.1"], "prefect": ["127.0.0.1"], "label": ["127.0.0.1"]}
    assert set(services["postgres"]["networks"]) == set(services["s3"]["networks"]) == {"state"}


def test_services_wait_for_health_and_can_do_little_else(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert name == "bootstrap" or service["healthcheck"]["test"], name
        for other, wanted in service.get("depends_on", {}).items():
            assert wanted["condition"] == (
                "service_completed_successfully" if other == "bootstrap" else "service_healthy"
            )
        if name != "postgres":  # its image drops its rights by itself
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert not service.get("privileged"), name


def test_state_survives_a_restart(services: dict[str, Any]) -> None:
    named = {
        name
        for name, service in services.items()
        for volume in service.get("volumes", [])
        if volume["type"] == "volume"
    }
    assert named == {"postgres", "s3", "bootstrap", "label", "worker", "worker-gpu"}


def test_commands_name_programs_that_exist(services: dict[str, Any]) -> None:
    for name, service in services.items():
        command = service.get("command") or []
        for word in [*command, *service.get("healthcheck", {}).get("test", [])]:
            if word.startswith("/app/"):
                file = ROOT / word.removeprefix("/app/")
                assert file.is_file(), (name, word)
                ast.parse(file.read_text(encoding="utf-8"))


def test_each_image_has_its_dockerfile(services: dict[str, Any]) -> None:
    built = {
        service["build"]["dockerfile"]: service["build"].get("target")
        for service in services.values()
        if "build" in service
    }
    for file, target in built.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        assert target is None or f" AS {target}\n" in text


def test_the_file_itself_says_how_to_start_it() -> None:
    head = (ROOT / "infra" / "compose.yaml").read_text(encoding="utf-8").splitlines()[1]
    assert "make_secrets.py" in head
    assert yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text(encoding="utf-8"))["name"] == "rlhf"
