import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import typer
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.commands_run import exit_code, stage_names
from flows.environment import Servers, prepare, running_servers, servers_file
from flows.examples import EXAMPLES
from schemas.config import AlignerConfig, RunConfig
from schemas.config.keys import every_key
from schemas.config.loading import load_config, shipped_recipes
from schemas.errors import ConfigError
from schemas.reports import Promotion, RunSummary, StageRecord
from schemas.settings import Settings

ROOT = Path(__file__).parents[2]


def rlhf(*arguments: str, home: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        env={**os.environ, "RLHF_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def test_the_default_recipe_says_what_the_schema_says():
    assert load_config("helpdesk") == RunConfig()


@pytest.mark.parametrize("recipe", shipped_recipes())
def test_every_shipped_recipe_is_valid_and_keeps_its_name(recipe):
    assert load_config(recipe).name == recipe


def test_config_prints_a_tree_that_config_accepts_again(tmp_path):
    first = CliRunner().invoke(app, ["config", "helpdesk", "ppo.kl_coef=0.2"])
    path = tmp_path / "resolved.yaml"
    path.write_text(first.stdout, encoding="utf-8")
    assert first.exit_code == 0
    assert yaml.safe_load(first.stdout)["aligners"][0]["kl_coef"] == 0.2
    assert CliRunner().invoke(app, ["config", str(path)]).stdout == first.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["config", "helpdesk", "ppo.foo=1"], "foo"),
        (["config", "helpdesk", "sft.steps=many"], "sft.steps"),
        (["config", "no-such-recipe"], "no-such-recipe"),
        (["stage", "no-such-stage", "helpdesk"], "no-such-stage"),
        (["validate", "x.jsonl", "--as", "no-such-kind"], "no-such-kind"),
        (["deploy", "--file", "no-such-file.yaml"], "no-such-file"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_exit_code_2(arguments, named):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert named in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["config", "helpdesk", "ppo.kl_coeff=1"], "kl_coef"),
        (["config", "helpdesk", "ppo.guard.kep=last"], "keep"),
        (["config", "helpdesk", "data.document=100"], "documents"),
        (["config", "helpdesk", "reward.lora={rnk: 4}"], "rank"),
        (["config", "hh", "data.rules={pii: {levl: warn}}"], "level"),
        (["config", "helpdesk", "pretran.steps=1"], "pretrain"),
        (["config", "helpdesk", "dp.beta=1"], "dpo"),
        (["config", "helpdesc"], "helpdesk"),
        (["stage", "rewrad", "helpdesk"], "reward"),
        (["validate", "x.jsonl", "--as", "preference"], "preferences"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(arguments, meant):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert re.search(rf"did you mean ([a-z_]+ or )?{meant}( or [a-z_]+)?\?", result.stderr), result.stderr


def test_a_name_that_resembles_nothing_is_not_guessed_at():
    assert "did you mean" not in CliRunner().invoke(app, ["config", "helpdesk", "ppo.zzz=1"]).stderr


def test_a_slip_in_a_command_is_answered_with_what_was_meant():
    result = CliRunner().invoke(app, ["rnu", "helpdesk"])
    assert result.exit_code == 2
    assert "Did you mean 'run'" in result.stderr


def _commands(group: object, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


def test_the_help_of_every_command_has_examples_that_the_command_line_takes(parse):
    commands = set(_commands(typer.main.get_command(app)))
    assert commands == set(EXAMPLES) - {"label"}
    for command, examples in EXAMPLES.items():
        for line, _ in examples:
            parse(line.rpartition("&& ")[2])
        shown = CliRunner().invoke(app, [*command.split(), "--help"]).stdout
        assert examples[0][0].split()[-1] in shown


def test_help_has_no_colours_in_a_file(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "--help"],
        env={**environment, "TERM": "xterm-256color"}, capture_output=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert b"\x1b" not in done.stdout
    assert b"rlhf run helpdesk" in done.stdout


def _completed(line: str) -> list[str]:
    environment = {"_RLHF_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    return CliRunner().invoke(app, [], env=environment, prog_name="rlhf").stdout.split()


def test_tab_completes_commands_recipes_stages_and_keys():
    assert {"run", "rollback", "report"} <= set(_completed("rlhf r"))
    assert "helpdesk" in _completed("rlhf run h")
    assert "reward" in _completed("rlhf stage re")
    assert "evaluate-dpo" in _completed("rlhf stage evaluate-d")
    assert _completed("rlhf run helpdesk ppo.kl_c") == ["ppo.kl_coef="]
    assert "dpo.lora.rank=" in _completed("rlhf config helpdesk dpo.lora.")


def test_every_key_that_is_offered_is_one_that_the_tree_has():
    methods = [section.model_fields["method"].default for section in get_args(get_args(AlignerConfig)[0])]
    tree = load_config("helpdesk", [f"aligners=[{', '.join(f'{{method: {one}}}' for one in methods)}]"])
    for key in every_key():
        section, _, rest = key.partition(".")
        node = next((aligner for aligner in tree.aligners if aligner.name == section), None)
        names = key.split(".") if node is None else rest.split(".")
        reached = (node or tree).model_dump()
        while isinstance(reached, dict) and names and names[0] in reached:
            reached = reached[names.pop(0)]
        # What is null by default (adapters, an ensemble) or of the other kind of data has no value to arrive at.
        # The keys of `data.rules` and `compute.stages` are names that a recipe chooses.
        assert not names or reached is None or section == "data" or key.startswith("compute.stages"), key


def test_an_unknown_option_is_exit_code_2():
    assert CliRunner().invoke(app, ["run", "helpdesk", "--no-such-option"]).exit_code == 2


def test_ctrl_c_is_one_line_and_exit_code_130(monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.commands_run.load_config", interrupted)
    result = CliRunner().invoke(app, ["config", "helpdesk"])
    assert result.exit_code == 130
    assert result.stderr.startswith("interrupted")


@pytest.mark.parametrize(
    ("verdict", "quarantined", "code"), [("promoted", 0, 0), ("promoted", 2, 3), ("refused", 0, 3)]
)
def test_the_exit_code_is_3_when_the_gate_refused_or_rows_were_quarantined(verdict, quarantined, code):
    validated = StageRecord(
        name="validate", status="ran", seconds=1, run_id="1", metrics={"quarantined": quarantined}
    )
    summary = RunSummary(
        run_id="0", stages=(validated,), evaluation={}, promotion=Promotion(verdict=verdict), report=""
    )
    assert exit_code(summary) == code


def test_stages_are_listed_in_the_order_of_the_figure():
    names = stage_names(load_config("helpdesk"))
    assert names[:3] == ["validate", "pretrain", "sft"]
    assert names.index("reward") < names.index("ppo") < names.index("dpo") < names.index("evaluate-sft")
    assert names[-3:] == ["gate", "register", "report"]


def test_prompts_are_selected_from_the_second_round_on():
    names = stage_names(
        load_config(
            "helpdesk", ["labelling.rounds=2", "labelling.select=disagreement", "reward.ensemble.size=4"]
        )
    )
    assert [name for name in names if name.startswith("select")] == ["select-2"]
    assert names.index("sample-2") < names.index("select-2") < names.index("preferences-2")


def test_a_later_round_has_the_same_stages_under_names_of_its_own():
    once = stage_names(load_config("helpdesk"))
    twice = stage_names(load_config("helpdesk", ["labelling.rounds=2"]))
    in_round = once[once.index("sample") : once.index("gate")]
    at = twice.index("gate") - len(in_round)
    assert twice[at : at + len(in_round)] == [f"{name}-2" for name in in_round]
    assert [name for name in twice if not name.endswith("-2")] == once
    assert in_round[-3:] == ["evaluate-sft", "evaluate-ppo", "evaluate-dpo"]


@pytest.mark.parametrize(
    ("recipe", "override", "said"),
    [
        ("hh", "labelling.rounds=2", "ranks no new responses"),
        ("helpdesk", "labelling.rounds=0", "labelling.rounds"),
        (
            "helpdesk",
            "aligners=[{method: dpo}, {method: ppo, name: dpo-2}]",
            "choose another name",
        ),
    ],
)
def test_rounds_that_cannot_be_are_refused(recipe, override, said):
    with pytest.raises(ConfigError, match=said):
        load_config(recipe, [override, *([] if "rounds" in override else ["labelling.rounds=2"])])


@pytest.mark.integration
@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["config", "helpdesk"]])
def test_help_and_config_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom flows.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'trl', 'transformers', 'mlflow', 'prefect', 'polars'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.strip() == "[]"


@pytest.mark.integration
def test_a_run_that_computes_nothing_needs_no_torch():
    code = (
        "import sys\nimport flows.pipeline, rlhf.evaluation.gate, rlhf.report.page\n"
        "print(sorted({'torch', 'trl', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.integration
def test_what_nobody_foresaw_is_one_line_and_a_traceback_only_with_debug(tmp_path):
    (tmp_path / "home").write_text("a file where a folder is wanted", encoding="utf-8")
    plain = rlhf("models", home=tmp_path / "home")
    assert plain.returncode == 1
    assert plain.stderr.startswith("error: ")
    assert "Traceback" not in plain.stderr
    assert "Traceback" in rlhf("models", "--debug", home=tmp_path / "home").stderr


def test_json_errors_leave_one_object_on_standard_output(tmp_path):
    done = rlhf("config", "no-such-recipe", "--json", home=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["status"] == "failed"


def test_what_the_user_has_set_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", {"PREFECT_API_URL": "http://prefect.example/api"})
    prepare(Settings(home=tmp_path))
    assert os.environ["PREFECT_API_URL"] == "http://prefect.example/api"
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "prefect")


def test_a_servers_file_left_by_a_killed_ui_is_not_believed(tmp_path):
    settings = Settings(home=tmp_path)
    dead = Servers(prefect="http://127.0.0.1:9/api", mlflow="http://127.0.0.1:9")
    servers_file(settings).write_text(dead.model_dump_json(), encoding="utf-8")
    assert running_servers(settings) is None


def test_the_readme_names_every_command():
    commands = typer.main.get_command(app).commands
    documented = set(re.findall(r"`rlhf ([a-z][a-z-]*)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert set(commands) == documented
