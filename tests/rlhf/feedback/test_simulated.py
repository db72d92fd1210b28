"""Simulated raters answer through the store like people; two machines collect the same rankings."""

import time

import polars as pl
import pytest

from rlhf.data.helpdesk.world import World
from rlhf.feedback import batches, collected, simulated
from rlhf.feedback.database import connect
from schemas.config import PreferencesConfig
from schemas.tables import TABLES, polars_schema


def _candidates(number: int) -> pl.DataFrame:
    questions = World(0).questions(number)
    rows = [
        {
            "prompt_id": f"{index:04x}",
            "prompt": [{"role": "user", "content": question}],
            "responses": [
                "We open at nine.",
                "No.",
                "Thank you for asking! The kettle costs twelve euros.",
                "No.",
            ],
            "tokens": [5, 2, 9, 2],
            "finished": [False, True, True, True],
        }
        for index, question in enumerate(questions)
    ]
    return pl.DataFrame(rows, schema=polars_schema("candidates"))


def _collect(url, number=24, **config):
    feedback = connect(url)
    settings = PreferencesConfig(**config)
    plan = batches.Plan(name="s", simulated=True, overlap=settings.overlap, gold_every=settings.gold_every)
    gold = simulated.gold_questions(0, settings.gold_questions, 4, 0)
    batch = batches.publish(feedback, "s", _candidates(number), plan, gold)
    simulated.answer(feedback, batch, settings, world_seed=0, seed=0)
    table = TABLES["rankings"].validate(collected.rankings(feedback, batch.id))
    standing = collected.standing(feedback, batch.id)
    closed_by = batches.find(feedback, "s").closed_by
    feedback.close()
    return table, standing, closed_by


def test_every_prompt_is_ranked_and_cut_responses_stay_marked(url):
    table, _, closed_by = _collect(url, num_raters=3)
    assert table["finished"].to_list() == [[False, True, True, True]] * 24
    assert table["rater"].n_unique() == 3
    assert closed_by == "quota"
    # The same text twice is the same to a rater, wherever it was shown.
    assert all(ranks[1] == ranks[3] for ranks in table["ranks"].to_list())


def test_another_database_with_other_raters_in_it_collects_the_same(url, tmp_path):
    first, *_ = _collect(url, overlap=2, gold_questions=4)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    store = connect(other)
    from rlhf.feedback import annotators

    annotators.add(store, "somebody")
    store.close()
    second, *_ = _collect(other, overlap=2, gold_questions=4)
    assert first.equals(second)
    assert first.height == 48


def test_gold_questions_have_one_right_answer_and_careful_raters_find_it(tmp_path):
    _, standing, _ = _collect(f"sqlite:///{tmp_path / 'f.db'}", number=120, gold_questions=12, noise=0.0)
    asked = [answer for answer in standing if answer.gold is not None]
    found = [answer.ranks[answer.gold.index(1)] == 1 for answer in asked if answer.rater == "simulated-0"]
    assert len(found) >= 2
    assert all(found)


@pytest.mark.integration
def test_the_default_recipe_s_2304_prompts_take_seconds(tmp_path):
    began = time.monotonic()
    table, *_ = _collect(f"sqlite:///{tmp_path / 'f.db'}", number=2304)
    assert table.height == 2304
    assert time.monotonic() - began < 30  # 3 s on two idle cores; the bound is for busy ones
