"""Runs each check against the chosen backend, once per trainer that it concerns, and keeps the outcomes."""

import importlib
import importlib.util
import json
import logging
from collections.abc import Generator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from rlhf.conformance.backend import Backend, Models, NotOffered
from rlhf.conformance.items import TITLES
from rlhf.conformance.models import build


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one check."""

    items: tuple[int, ...]
    check: str
    trainer: str | None
    outcome: str
    message: str


OUTCOMES = pytest.StashKey[list[Outcome]]()
BACKEND = pytest.StashKey[Backend]()
NAMES = ("online", "trainer", "stage")
"""Arguments of a check that say which trainer it concerns; else its marker does."""


def pytest_configure(config: pytest.Config) -> None:
    """Know the marker."""
    config.addinivalue_line(
        "markers", "item(*numbers): which mistakes a check of the conformance suite catches"
    )
    config.addinivalue_line("markers", "integration: takes training steps")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a check that has an argument `online` or `trainer` once for each one that the backend has."""
    backend = _chosen(metafunc.config)
    for argument, names in (("online", backend.online), ("trainer", backend.trainers)):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, names or [pytest.param("", marks=pytest.mark.skip("not offered"))])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Judge numbers, not warnings, whatever the configuration around says of those."""
    for item in items:
        if item.get_closest_marker("item"):
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Report what is not offered as such."""
    try:
        return (yield)
    except NotOffered as error:
        pytest.skip(f"not offered{f': {error}' if str(error) else ''}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the outcome of each check."""
    report: pytest.TestReport = yield
    marker = item.get_closest_marker("item")
    if marker is not None and (report.when == "call" or report.outcome != "passed"):
        arguments = item.callspec.params if hasattr(item, "callspec") else {}
        found = Outcome(
            items=marker.args,
            check=getattr(item, "originalname", item.name),
            trainer=next(
                (arguments[name] for name in NAMES if name in arguments), marker.kwargs.get("trainer")
            ),
            outcome=_outcome(report, call),
            message=str(call.excinfo.value).split("\n", 1)[0] if call.excinfo else "",
        )
        item.config.stash.setdefault(OUTCOMES, []).append(found)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the outcomes where they were asked for."""
    path = session.config.getoption("--conformance-results", None)
    if path:
        backend = _chosen(session.config)
        found = {
            "backend": backend.name,
            "versions": dict(backend.versions()),
            "date": datetime.now(UTC).date().isoformat(),
            "outcomes": [asdict(outcome) for outcome in session.config.stash.get(OUTCOMES, [])],
        }
        Path(path).write_text(json.dumps(found, indent=1), encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print a line per item."""
    outcomes = config.stash.get(OUTCOMES, [])
    if not outcomes:
        return
    terminalreporter.section(f"conformance of {_chosen(config).name}")
    for number, title in TITLES.items():
        mine = [found.outcome for found in outcomes if number in found.items]
        if mine:
            verdict = next(kind for kind in ("error", "fail", "pass", "not offered") if kind in mine)
            terminalreporter.write_line(f"{number:>3}  {verdict:<12} {title}")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """The implementation under test."""
    return _chosen(request.config)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Tiny models that are built once."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    return build(tmp_path_factory.mktemp("conformance"))


def _outcome(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    """A number that is wrong is a failure; any other exception says that the adapter or the suite broke."""
    if report.failed:
        return "fail" if call.excinfo is not None and call.excinfo.errisinstance(AssertionError) else "error"
    return "pass" if report.passed else "not offered"


def _chosen(config: pytest.Config) -> Backend:
    if BACKEND not in config.stash:
        config.stash[BACKEND] = _load(config.getoption("--backend", "ours") or "ours")
    return config.stash[BACKEND]


def _load(name: str) -> Backend:
    wanted = "wanted ours, trl, or a Python file that defines `backend` of a subclass of rlhf.conformance.backend.Backend"
    if name in ("ours", "trl"):
        module = importlib.import_module(f"rlhf.conformance.backends.{name}")
    else:
        spec = importlib.util.spec_from_file_location("conformance_backend", name)
        if spec is None or spec.loader is None or not Path(name).is_file():
            pytest.exit(f"--backend={name} is no Python file; {wanted}", returncode=4)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    backend = getattr(module, "backend", None)
    if not isinstance(backend, Backend):
        pytest.exit(f"--backend={name} defines no `backend`; {wanted}", returncode=4)
    return backend
