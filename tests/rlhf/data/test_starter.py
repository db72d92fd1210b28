import re
from pathlib import Path

import pytest

from rlhf.data.starter import write_starter
from rlhf.data.validation import validate_files
from schemas.config.data import DataChecks
from schemas.config.loading import load_config

ROOT = Path(__file__).parents[3]
FORMATS = {
    "pairs.csv": "preferences",
    "pairs_conversation.jsonl": "preferences",
    "alpaca.json": "demonstrations",
    "sharegpt.json": "demonstrations",
    "messages.jsonl": "demonstrations",
    "rankings.jsonl": "rankings",
    "thumbs.jsonl": "feedback",
}
DATA = {
    "corpus.txt": "corpus",
    "demonstrations.jsonl": "demonstrations",
    "preferences.jsonl": "preferences",
    "prompts.csv": "prompts",
    "evaluation.jsonl": "prompts",
}


@pytest.fixture
def project(tmp_path):
    write_starter(tmp_path / "support", "support")
    return tmp_path / "support"


def test_the_recipe_is_valid_and_named_as_asked(project):
    tree = load_config(str(project / "recipe.yaml"))
    assert tree.name == "support"
    assert tree.evaluate.independent
    assert "PROJECT" not in "".join(path.read_text(encoding="utf-8") for path in project.glob("*.*"))


@pytest.mark.integration
def test_every_example_file_is_read_whole_and_there_are_no_others(project):
    found = {path.name for path in (project / "formats").iterdir()}
    assert found == set(FORMATS)
    assert {path.name for path in (project / "data").iterdir()} == set(DATA)
    for folder, kinds in (("formats", FORMATS), ("data", DATA)):
        for name, kind in kinds.items():
            report = validate_files([project / folder / name], kind=kind, out=None, config=DataChecks())
            assert report.verdict in {"accept", "warn"}, (name, report.findings)
            assert report.quarantined == 0
            assert report.kept > 0


def test_two_starters_are_the_same(tmp_path):
    first, second = (write_starter(tmp_path / name, "support") for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_readme_of_the_project_shows_commands_that_exist(project, parse):
    shown = re.findall(r"^rlhf .*$", (project / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) >= 7
    for line in shown:
        parse(line)
