"""Every command in the documentation is one that the command line takes; those that take a second are run.

Run: `config`, `init`, `validate`, `doctor`, and `--help`. Checked by the command line's own definitions, because they take
minutes, wait for people or serve until Ctrl-C: all others; the tests of the pipeline, the labelling page and the servers run them.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlhf.data.starter import write_starter

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
RUN = {"config", "init", "validate", "doctor"}
OTHERS = {
    ".venv/bin/pip", "accelerate", "cd", "pytest", "docker", "export", "git", "kubectl", "lm_eval", "make", "mlflow", "pip",
    "prefect", "python", "rm", "terraform", "vllm", "curl", "conda", "torchrun", "helm", "openssl", "psql", "pg_dump",
    "apt-get", "aws", "set",
}  # fmt: skip
"""Programs other than ours that the pages show."""
STANDS_FOR = {"VERSION": "3", "PORT": "8800"}
"""Numbers that a reader fills in."""


def _blocks(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)


def _lines(page: Path) -> list[str]:
    """Return the commands of a page's shell blocks, without variables before them and what follows in a comment."""
    lines = [line.strip() for block in _blocks(page) for line in block.splitlines()]
    lines = [re.sub(r"\$\(.*?\)", "DIGEST", line).partition(" | ")[0] for line in lines]
    commands = [
        part.strip() for line in lines if line and not line.startswith("#") for part in line.split(" && ")
    ]
    return [re.sub(r"^([A-Z_0-9]+=\S+ +)+", "", command) for command in commands]


def _filled(line: str) -> str:
    return re.sub(r"\b[A-Z]+\b", lambda word: STANDS_FOR.get(word[0], word[0]), line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one_that_exists(page, parse):
    for line in _lines(page):
        program = line.split()[0]
        if program == "rlhf":
            parse(_filled(line))
        elif program == "make":
            for target in (word for word in shlex.split(line, comments=True)[1:] if "=" not in word):
                assert re.search(
                    rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
                ), line
        elif (
            program in {"python", "python3"}
            and (script := re.search(r"\S+\.py\b", line))
            and "/" in script[0]
        ):
            assert (ROOT / script[0]).is_file(), line
        elif program == ".":
            assert line.startswith(". .venv/bin/activate"), line
        else:
            assert program in OTHERS or program.startswith("./"), f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_within_a_sentence_exist_too(page, parse):
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`(rlhf [a-z][^`]*)`", text):
        words = [word for word in span.split()[1:3] if re.fullmatch(r"[a-z][a-z-]*", word)]
        names = [word for word in words[: 2 if words[0] == "label" else 1] if "/" not in word]
        parse(" ".join(["rlhf", *names, "--help"]))


def _quick() -> list[str]:
    """Return the commands that take about a second, each once, as far as a starter project has the files that they name."""
    known = {"helpdesk", "hh", "micro", "support", "recipe.yaml"}
    found = {
        re.sub(r" +#.*", "", line) for page in PAGES for line in _lines(page) if line.startswith("rlhf ")
    }
    return sorted(
        line for line in found if (words := line.split())[1] in RUN and (len(words) == 2 or words[2] in known)
    )


@pytest.mark.integration
@pytest.mark.parametrize("line", _quick())
def test_quick_commands_run(line, tmp_path):
    write_starter(tmp_path / "project", "project")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *shlex.split(line)[1:]],
        env={**os.environ, "RLHF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path / "project", capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"


def test_there_are_quick_commands_to_run():
    assert {line.split()[1] for line in _quick()} >= {"config", "init", "doctor"}


def test_every_page_is_in_the_sites_navigation():
    def pages(node: object) -> list[str]:
        if isinstance(node, str):
            return [node]
        values = node.values() if isinstance(node, dict) else node
        return [page for value in values for page in pages(value)]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    written = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.name != "README.md"}
    assert set(listed) == written
    assert len(listed) == len(set(listed))


def test_links_and_pictures_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
