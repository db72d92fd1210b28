"""The small images hold what their programs import: everything else that is installed here is hidden from them."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]

HIDE = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in HIDDEN:
            raise ModuleNotFoundError(f'No module named {name!r}: it is not in the image', name=name)

HIDDEN = set(sys.argv[1].split(','))
sys.meta_path.insert(0, Absent())
"""
LABEL = """
from pathlib import Path
from starlette.testclient import TestClient
import flows.cli, flows.resume, flows.events, prefect.client.orchestration, prefect.events.worker, psycopg
from flows import commands_label
from rlhf.feedback import agreement, annotators, batches, collected, exports, imports, raters
from rlhf.feedback.database import connect
from rlhf.feedback.web.app import create_app
store = connect(f'sqlite:///{sys.argv[2]}/feedback.db')
assert annotators.add(store, 'ann', 'rater')
with TestClient(create_app(store, 'x' * 32, lambda: None)) as client:
    assert client.get('/health').text == 'ok'
    assert client.get('/sign-in').status_code == 200
assert commands_label.batches_closed(store, batches.closed(store)) is None
assert not HIDDEN & {name.partition('.')[0] for name in sys.modules}
"""
SERVER = """
import os
os.environ['PREFECT_HOME'] = sys.argv[2]
from prefect.server.api.server import create_app
create_app()
import mlflow.server.auth, mlflow.server.fastapi_app, psycopg, asyncpg, boto3
assert not HIDDEN & {name.partition('.')[0] for name in sys.modules}
"""


def closure(file: Path) -> set[str]:
    """Return what pip would install for a file of requirements, from what is installed here."""
    lines = [
        line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    ]
    pending, seen = [Requirement(line) for line in lines], set[tuple[str, frozenset[str]]]()
    while pending:
        wanted = pending.pop()
        name, extras = wanted.name.lower().replace("_", "-").replace(".", "-"), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for text in metadata.requires(name) or ():
            found = Requirement(text)
            contexts = [{"extra": extra} for extra in (*extras, "")]
            if found.marker is None or any(found.marker.evaluate(context) for context in contexts):
                pending.append(found)
    return {name for name, _ in seen}


def hidden(kept: set[str]) -> set[str]:
    """Return the importable names that no kept distribution provides."""
    kept = kept | {"rlhf", "pip", "setuptools"}
    return {
        module
        for module, providers in metadata.packages_distributions().items()
        if not kept & {provider.lower().replace("_", "-").replace(".", "-") for provider in providers}
    }


@pytest.mark.integration
@pytest.mark.parametrize(("image", "program"), [("label", LABEL), ("server", SERVER)])
def test_a_small_image_holds_what_its_program_imports(image: str, program: str, tmp_path: Path) -> None:
    absent = hidden(closure(ROOT / "infra" / "docker" / f"{image}.txt"))
    assert {"torch", "transformers", "trl"} <= absent
    assert image == "server" or "mlflow" in absent
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HIDE + program, ",".join(absent), str(tmp_path)],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "RLHF_HOME": str(tmp_path / "home"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
