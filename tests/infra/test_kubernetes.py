"""Every object against Kubernetes' own schemas, unknown fields refused; and Prefect's job template, filled in."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"
VERSION = "1.33.0"


def objects(folder: Path) -> list[dict[str, Any]]:
    """Return every object in the folder and in what its kustomization builds on, unpatched."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = []
    for resource in kustomization["resources"]:
        path = (folder / resource).resolve()
        found += (
            objects(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        )
    return found


OVERLAYS = sorted(path.parent for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))


def check(thing: dict[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(thing, VERSION, strict=True)


def pods(things: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for thing in things:
        if thing["kind"] in {"Deployment", "StatefulSet", "Job"}:
            yield thing["metadata"]["name"], thing["spec"]["template"]["spec"]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda overlay: overlay.name)
def test_objects_satisfy_kubernetes_schemas(overlay: Path) -> None:
    found = objects(overlay)
    assert {"Deployment", "Service", "NetworkPolicy", "Role", "Job"} <= {thing["kind"] for thing in found}
    for thing in found:
        check(thing)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda overlay: overlay.name)
def test_kustomize_builds_what_the_schemas_accept(overlay: Path, program: Callable[[str], str]) -> None:
    done = subprocess.run(
        [program("kubectl"), "kustomize", str(overlay)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    for thing in built:
        check(thing)
        assert thing["kind"] == "Namespace" or thing["metadata"]["namespace"] == "rlhf"
    clients = next(thing["data"] for thing in built if thing["metadata"]["name"] == "clients")
    assert clients["RLHF_STORE"].startswith("s3://")
    for _, pod in pods(built):
        assert not [
            box for box in pod["containers"] if box["image"] in {"rlhf-worker", "rlhf-server", "rlhf-label"}
        ]


def test_a_schema_violation_is_noticed() -> None:
    broken = next(thing for thing in objects(KUBERNETES / "base") if thing["kind"] == "Deployment")
    box = broken["spec"]["template"]["spec"]["containers"][0]
    box["resource"] = box.pop("resources")
    with pytest.raises(Exception, match="resource"):
        check(broken)


def test_pods_run_without_rights_and_without_service_links() -> None:
    for overlay in OVERLAYS:
        for name, pod in pods(objects(overlay)):
            assert pod["securityContext"]["runAsNonRoot"], name
            # For a service called mlflow Kubernetes would set MLFLOW_PORT=tcp://..., which MLflow reads.
            assert pod["enableServiceLinks"] is False, name
            for box in pod["containers"]:
                assert box["securityContext"]["allowPrivilegeEscalation"] is False, name
                assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
                assert "limits" in box["resources"], name


def test_secrets_are_mounted_one_by_one_and_only_known_ones() -> None:
    compose = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text(encoding="utf-8"))
    for overlay in OVERLAYS:
        for name, pod in pods(objects(overlay)):
            for volume in pod["volumes"]:
                if "secret" in volume:
                    mounted = {item["key"] for item in volume["secret"]["items"]}
                    assert mounted <= set(compose["secrets"]), name


def test_the_databases_are_those_of_compose() -> None:
    ours = KUBERNETES / "overlays" / "self-contained" / "databases.sql"
    assert ours.read_bytes() == (ROOT / "infra" / "docker" / "databases.sql").read_bytes()


def filled(**values: Any) -> dict[str, Any]:
    """Return the job that Prefect's worker would make, by Prefect's own templates and its own schema check."""
    from prefect.utilities.templating import apply_values

    template = json.loads((KUBERNETES / "job-template.json").read_text(encoding="utf-8"))
    schema = template["variables"]
    jsonschema.validate(values, schema)
    # As Prefect's worker does: what has no value vanishes.
    defaults = {
        name: found["default"]
        for name, found in schema["properties"].items()
        if found.get("default") is not None
    }
    given = {"env": {}, "labels": {}, "annotations": {}, **defaults, "name": "run", **values}
    made: dict[str, Any] = apply_values(template["job_configuration"], given)["job_manifest"]
    box = made["spec"]["template"]["spec"]["containers"][0]
    box["env"] = [{"name": name, "value": value} for name, value in box["env"].items()]
    box["args"] = ["prefect", "flow-run", "execute"]
    return made


@pytest.mark.parametrize("gpus", [0, 2])
def test_the_job_template_asks_for_gpus_and_their_nodes(gpus: int) -> None:
    values = {"gpu_count": gpus, "node_pool": "gpu", "gpu_product": "NVIDIA-H100-80GB-HBM3"} if gpus else {}
    job = filled(**values)
    pod = job["spec"]["template"]["spec"]
    # Prefect's own check wants these two here, where Kubernetes has no such fields and drops them.
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)
    check(job)
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == gpus
    assert pod.get("nodeSelector", {}) == (
        {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "rlhf/pool": "gpu"} if gpus else {}
    )
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    # A drained node sends SIGTERM: time for a checkpoint, and Prefect, not Kubernetes, starts the run again.
    assert pod["terminationGracePeriodSeconds"] == 120
    assert job["spec"]["backoffLimit"] == 0
    assert pod["enableServiceLinks"] is False


def test_the_job_template_refuses_nonsense() -> None:
    with pytest.raises(jsonschema.ValidationError):
        filled(gpu_count="two")
