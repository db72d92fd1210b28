"""The files parse, refer only to what exists, and keep what must not be given away.

`terraform validate` needs the AWS provider, which the package index does not have; it was not run.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TERRAFORM = Path(__file__).parents[2] / "infra" / "terraform"
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in sorted(TERRAFORM.glob("*.tf")))


def blocks(kind: str) -> dict[str, dict[str, Any]]:
    """Return blocks by their dotted labels; a string literal loses its quotes."""
    hcl2 = pytest.importorskip("hcl2")
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(TERRAFORM.glob("*.tf")):
        with path.open(encoding="utf-8") as file:
            for block in _plain(hcl2.load(file)).get(kind, []):
                labels = []
                while len(block) == 1 and isinstance(next(iter(block.values())), dict):
                    label, block = next(iter(block.items()))
                    labels.append(label)
                    if len(labels) == (2 if kind in {"resource", "data"} else 1):
                        break
                found[".".join(labels)] = block
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items() if not str(key).startswith("__")}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value[1:-1] if isinstance(value, str) and re.fullmatch(r'"[^"]*"', value) else value


def test_every_reference_names_what_exists() -> None:
    resources, data = blocks("resource"), blocks("data")
    assert len(resources) > 20
    for kind, name in re.findall(r"(?<![\w.\"])(aws_\w+)\.(\w+)", TEXT):
        assert f"{kind}.{name}" in resources
    for kind, name in re.findall(r"data\.(\w+)\.(\w+)", TEXT):
        assert f"{kind}.{name}" in data
    assert set(re.findall(r"\bvar\.(\w+)", TEXT)) == set(blocks("variable"))


def test_the_bucket_is_versioned_encrypted_private_and_keeps_what_is_current() -> None:
    found = blocks("resource")
    assert found["aws_s3_bucket_versioning.store"]["versioning_configuration"][0]["status"] == "Enabled"
    rule = found["aws_s3_bucket_server_side_encryption_configuration.store"]["rule"][0]
    assert rule["apply_server_side_encryption_by_default"][0]["sse_algorithm"] == "aws:kms"
    block = found["aws_s3_bucket_public_access_block.store"]
    assert [block[name] for name in sorted(block) if name != "bucket"] == [True] * 4
    lifecycle = found["aws_s3_bucket_lifecycle_configuration.store"]["rule"][0]
    assert list(lifecycle["expiration"][0]) == ["expired_object_delete_marker"]


def test_the_database_is_private_and_its_password_is_not_terraforms() -> None:
    database = blocks("resource")["aws_db_instance.database"]
    assert database["storage_encrypted"] is True
    assert database["publicly_accessible"] is False
    assert database["deletion_protection"] is True
    assert database["manage_master_user_password"] is True
    assert not re.search(r"(?<!manage_master_user_)password\s*=", TEXT)


def test_roles_name_what_they_may_do() -> None:
    policy = blocks("data")["aws_iam_policy_document.run"]
    for statement in policy["statement"]:
        assert not [action for action in statement["actions"] if "*" in action]
        assert "*" not in statement["resources"]
    assert "AdministratorAccess" not in TEXT
    assert "FullAccess" not in TEXT


def test_gpu_nodes_go_when_nobody_needs_them() -> None:
    group = blocks("resource")["aws_eks_node_group.gpu"]
    assert (group["scaling_config"][0]["min_size"], group["scaling_config"][0]["desired_size"]) == (0, 0)
    taint = group["taint"][0]
    assert (taint["key"], taint["effect"]) == ("nvidia.com/gpu", "NO_SCHEDULE")


def test_terraform_would_not_format_them_otherwise(program: Callable[[str], str]) -> None:
    done = subprocess.run(
        [program("terraform"), "fmt", "-check", "-diff", str(TERRAFORM)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
