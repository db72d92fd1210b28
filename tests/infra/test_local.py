"""What compose.yaml starts, as processes: from a cron trigger to a champion, on PostgreSQL and S3, behind passwords."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def test_bootstrap_left_what_the_file_describes(servers: Any, scheduled: str) -> None:
    wanted = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert servers.bootstrapped == {deployment["name"] for deployment in wanted}


def test_nobody_comes_in_without_a_password(servers: Any) -> None:
    for attempt in (
        lambda: servers.prefect("deployments/filter", {}, login="rlhf:guessed"),
        lambda: servers.mlflow("experiments/search?max_results=1", login="pipeline:guessed"),
        lambda: servers.mlflow(
            "users/create", {"username": "x", "password": "y" * 20}
        ),  # pipeline is no admin
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            attempt()
        assert refused.value.code in {401, 403}


def test_a_cron_trigger_becomes_a_champion(servers: Any, scheduled: str) -> None:
    run = servers.ended(scheduled)
    assert run["state_type"] == "COMPLETED", servers.log("worker")[-3000:]
    assert run["auto_scheduled"]
    assert "View run" not in servers.log(
        "worker"
    )  # MLflow's client would print to standard output, which is the result's
    model = servers.mlflow("registered-models/get?name=micro")["registered_model"]
    champion = next(alias["version"] for alias in model["aliases"] if alias["alias"] == "champion")
    version = servers.mlflow(f"model-versions/get?name=micro&version={champion}")["model_version"]
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert (tags["aligner"], tags["gate"]) == ("dpo", "passed")
    parent = servers.mlflow(f"runs/get?run_id={tags['pipeline_run']}")["run"]
    found = {tag["key"]: tag["value"] for tag in parent["data"]["tags"]}
    assert (parent["info"]["status"], found["prefect.flow_run_id"]) == ("FINISHED", run["id"])
    # Where it lies: rows in PostgreSQL, bytes in S3, and neither database nor artifact in the worker's folder.
    assert tags["uri"].startswith("s3://rlhf/store/folders/")
    assert version["source"].startswith("mlflow-artifacts:/")
    assert [key for key in _objects(servers, "rlhf") if key.startswith("store/manifests/")]
    assert [key for key in _objects(servers, "mlflow") if key.startswith("artifacts/")]
    assert servers.database("mlflow", "SELECT count(*) FROM runs WHERE status = 'FINISHED'")[0][0] > 8
    planned = "SELECT count(*) FROM flow_run WHERE state_type = 'COMPLETED' AND auto_scheduled"
    assert servers.database("prefect", planned) == [(1,)]
    assert servers.database("feedback", "SELECT count(*) FROM rankings")[0][0] > 0
    forbidden = {"mlflow.db", "prefect.db", "feedback.db", "mlartifacts"}
    assert not [path for path in (servers.home / "work").rglob("*") if path.name in forbidden]


def test_no_secret_is_in_any_log_run_or_parameter(servers: Any, scheduled: str) -> None:
    servers.ended(scheduled)
    secrets = {path.name: path.read_text() for path in (servers.home / "secrets").iterdir()}
    del secrets["s3_key_id"]  # a name, not a secret
    secrets["notify"] = "canary-notify-token"
    told = {path.name: servers.log(path.stem) for path in (servers.home / "logs").iterdir()}
    told["out"] = (servers.home / "out").read_text()
    for kind in ("flow_runs", "task_runs", "logs", "deployments", "work_pools", "block_documents", "events"):
        told[kind] = json.dumps(servers.prefect(f"{kind}/filter", {}))
    for table in ("params", "tags", "model_version_tags", "runs", "experiments"):
        told[table] = repr(servers.database("mlflow", f"SELECT * FROM {table}"))  # noqa: S608 - our own names
    assert all(len(text) > 20 for text in told.values())
    for bucket in ("rlhf", "mlflow"):
        told |= {
            f"s3://{bucket}/{key}": body.decode("latin-1") for key, body in _objects(servers, bucket).items()
        }
    assert {"report.html", "config.json", "sbom.json", "README.md"} <= {
        place.rpartition("/")[2] for place in told
    }
    leaks = [
        (name, place) for name, secret in secrets.items() for place, text in told.items() if secret in text
    ]
    assert leaks == []


def test_a_dump_restores_every_row_and_the_servers_own_upgrade_takes_it(
    servers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps of docs/operations.md, into a PostgreSQL of its own."""
    monkeypatch.syspath_prepend(ROOT / "infra")
    from local_postgresql import postgresql

    password, home = servers.secret("postgres_password"), servers.home / "restored"
    env = {"PATH": os.environ["PATH"], "PGPASSWORD": password}
    login = ["-h", "127.0.0.1", "-U", "rlhf", "-p"]
    dump = ["pg_dumpall", *login, str(_port(servers.secret("mlflow_database"))), "--clean", "--if-exists"]
    dumped = subprocess.run(dump, env=env, capture_output=True, check=True).stdout
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with postgresql(home, port, password, Path(os.devnull)):
        restore = ["psql", "-q", *login, str(port), "-d", "postgres"]
        done = subprocess.run(restore, env=env, input=dumped, capture_output=True, check=True)
        # It connects as the role that the dump would make anew; nothing else is complained of.
        complaints = [line for line in done.stderr.decode().splitlines() if "ERROR" in line]
        assert len(complaints) == 2
        assert all('role "rlhf"' in line or "current user" in line for line in complaints)
        for name in ("mlflow", "mlflow_auth", "prefect", "feedback"):
            here, there = (_rows(_database(servers, name, at)) for at in (None, port))
            # Prefect's server goes on planning and telling meanwhile.
            lasting = {"deployment", "flow", "work_pool", "automation"} if name == "prefect" else set(here)
            assert lasting <= set(here) == set(there)
            assert {table: there[table] for table in lasting} == {table: here[table] for table in lasting}
            assert sum(there[table] for table in lasting) > 0
        address = _database(servers, "mlflow", port).replace("postgresql:", "postgresql+psycopg:")
        upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", address]
        subprocess.run(upgrade, check=True, capture_output=True)


def _database(servers: Any, name: str, port: int | None) -> str:
    """Return the address of a database, or of what was restored of it."""
    base, _, _ = servers.secret("feedback_database").rpartition("/")
    return f"{base.rpartition(':')[0]}:{port}/{name}" if port else f"{base}/{name}"


def _port(address: str) -> int:
    port = urlsplit(address).port
    assert port is not None
    return port


def _rows(address: str) -> dict[str, int]:
    """Return how many rows each table has."""
    import psycopg

    with psycopg.connect(address) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        found = {}
        for (table,) in tables:
            row = connection.execute(f'SELECT count(*) FROM "{table}"'.encode()).fetchone()  # noqa: S608
            assert row is not None
            found[table] = row[0]
        return found


def _objects(servers: Any, bucket: str) -> dict[str, bytes]:
    import boto3

    client = boto3.client(
        "s3", endpoint_url=servers.client["AWS_ENDPOINT_URL"], region_name="us-east-1",
        aws_access_key_id=servers.client["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=servers.client["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
