"""Hadolint reads each Dockerfile; what it does not know of this project is asked here."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "infra" / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_hadolint_finds_nothing(file: Path, program: Callable[[str], str]) -> None:
    done = subprocess.run(
        [program("hadolint"), "--no-color", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_images_are_built_in_stages_pinned_and_run_without_rights(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(re.findall(r"^FROM ", text, re.MULTILINE)) >= 2
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["10001"]
    assert not re.search(r"--(?:trusted-host|break-system-packages)|sudo|chmod 777|curl |wget ", text)
    for line in re.findall(r"pip install (.*)$", text, re.MULTILINE):
        pinned = "-c constraints.txt" in line or "--no-deps" in line or "s3.txt" in line
        assert pinned, line
    # No entry point is a shell, and the last stage compiles nothing.
    assert not re.search(r"^(?:ENTRYPOINT|CMD) (?!\[)", text, re.MULTILINE)
    assert "pip install" not in text[text.rindex("USER 10001") :]


def test_what_is_copied_is_in_the_build_context() -> None:
    wanted = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert wanted[1] == "*"
    context = {line.removeprefix("!") for line in wanted if line.startswith("!")}
    for file in FILES:
        for sources in re.findall(
            r"^COPY (?!--from)(.*) \S+$", file.read_text(encoding="utf-8"), re.MULTILINE
        ):
            for source in sources.split():
                assert source.split("/")[0] in context, (file.name, source)
                assert (ROOT / source).exists(), (file.name, source)
    assert ".secrets" in " ".join(wanted)


def test_every_requirement_of_an_image_is_pinned() -> None:
    pinned = {
        re.split(r"[=<>!]", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    }
    for name in ("server", "label"):
        for line in (ROOT / "infra" / "docker" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                assert line.partition("[")[0].replace("_", "-") in pinned, line
    for name in ("s3", "kubernetes"):
        lines = (ROOT / "infra" / "docker" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        assert all("==" in line for line in lines if not line.startswith("#"))
