"""The audit finds what it should: OSV's ranges by hand, licences one by one, and a document that is what it says."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "infra/audit.py", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def advisory(name: str, *ranges: dict[str, Any], **more: Any) -> dict[str, Any]:
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": list(ranges), **more}
    return {"id": "TEST-1", "summary": "a test", "affected": [affected]}


def events(*found: dict[str, str]) -> dict[str, Any]:
    return {"type": "ECOSYSTEM", "events": list(found)}


def test_the_pins_and_licences_of_today_are_clean() -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("found", "hit"),
    [
        (advisory("Jinja2", events({"introduced": "0"})), True),  # never fixed; names are normalised
        (advisory("jinja2", events({"introduced": "0"}, {"fixed": "99"})), True),
        (advisory("jinja2", events({"introduced": "0"}, {"fixed": "1.0"})), False),
        (advisory("jinja2", events({"introduced": "99"})), False),
        (advisory("jinja2", events({"introduced": "0"}, {"last_affected": "99"})), True),
        (advisory("jinja2", events({"introduced": "0"}, {"last_affected": "1.0"})), False),
        # Two windows: the version is in the second.
        (advisory("jinja2", events({"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "2"}, {"fixed": "9"})), True),
        (advisory("jinja2", versions=["3.1.6"]), True),
        (advisory("jinja2", versions=["3.1.5"]), False),
        (advisory("jinja", events({"introduced": "0"})), False),
        (advisory("jinja2", {"type": "GIT", "events": [{"introduced": "0"}]}), False),
        ({**advisory("jinja2", events({"introduced": "0"})), "withdrawn": "2026-01-01T00:00:00Z"}, False),
    ],
)  # fmt: skip
def test_an_advisory_hits_the_versions_that_it_names(
    found: dict[str, Any], hit: bool, tmp_path: Path
) -> None:
    (tmp_path / "one.json").write_text(json.dumps(found), encoding="utf-8")
    pinned = tmp_path / "constraints.txt"
    pinned.write_text("# comment\nJinja2==3.1.6\nother==1.0\n", encoding="utf-8")
    done = run("--advisories", str(tmp_path), "--constraints", str(pinned))
    assert done.returncode == int(hit), done.stdout
    assert ("jinja2 3.1.6: TEST-1 a test" in done.stdout) == hit


@pytest.mark.parametrize(
    ("expression", "licences", "fine"),
    [
        ("MIT", (), True),
        ("GPL-3.0-only", (), False),
        ("GPL-3.0-only OR MIT", (), True),
        ("GPL-3.0-only AND MIT", (), False),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", (), True),
        ("Apache-2.0 WITH LLVM-exception", (), True),
        (None, ("MIT License",), True),
        (None, ("MIT License", "Proprietary"), False),
        (None, (), False),
    ],
)
def test_a_licence_must_be_on_the_list(
    expression: str | None, licences: tuple[str, ...], fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "infra"))
    import audit

    from rlhf.adapters.sbom import Package

    assert audit.permitted(Package("some-thing", "1", expression, licences)) == fine


def test_the_document_lists_every_pin_that_is_installed_once(tmp_path: Path) -> None:
    out = tmp_path / "new" / "sbom.json"
    assert run("--sbom", str(out)).returncode == 0
    document = json.loads(out.read_text(encoding="utf-8"))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    listed = [component["purl"] for component in document["components"]]
    assert len(listed) == len(set(listed))
    pins = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, _, version in (
            line.strip().partition("==") for line in (ROOT / "constraints.txt").open(encoding="utf-8")
        )
    }
    found = dict(re.fullmatch(r"pkg:pypi/(.+)@(.+)", purl).groups() for purl in listed)  # type: ignore[union-attr]
    assert "rlhf" in found
    shared = set(pins) & set(found)
    assert len(shared) > 150
    assert {name: found[name].partition("+")[0] for name in shared} == {name: pins[name] for name in shared}
