"""A section's class decides which stage trains it, and the stage's parameters decide what it is handed."""

from typing import get_args, get_type_hints

import pytest

from schemas.config import AlignerConfig, RunConfig
from schemas.pipeline import AlignerInputs
from schemas.reports import PolicyResult
from tasks.align import STAGES
from tasks.code_digest import _read

SECTIONS = get_args(get_args(AlignerConfig)[0])


def test_every_section_has_a_stage_and_the_other_way_round():
    assert set(STAGES) == set(SECTIONS)
    assert len({section.model_fields["method"].default for section in SECTIONS}) == len(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.model_fields["method"].default)
def test_a_stage_is_named_for_its_method_and_takes_what_a_round_has(section):
    hints = get_type_hints(STAGES[section].body)
    assert STAGES[section].name == section.model_fields["method"].default
    assert hints.pop("return") is PolicyResult
    assert hints.pop("config") is section
    hints.pop("work")
    assert hints == {name: AlignerInputs.model_fields[name].annotation for name in hints}


def test_an_aligner_without_a_name_is_called_by_its_method():
    config = RunConfig.model_validate({"aligners": [{"method": "dpo"}, {"method": "dpo", "name": "other"}]})
    assert [aligner.name for aligner in config.aligners] == ["dpo", "other"]


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_a_stages_key_follows_the_code_that_trains(stage):
    module = stage.body.__module__
    _, imported = _read(module)
    assert any(name.startswith(("rlhf.training.", "rlhf.models.best_of_n")) for name in imported)
