"""What the world writes: the same from the same seed, splits apart, flaws as often as promised."""

import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from rlhf.data.helpdesk import phrases
from rlhf.data.helpdesk.utility import judge
from rlhf.data.helpdesk.world import Traits, World
from schemas.errors import ConfigError, NotFound


def test_the_same_seed_writes_the_same_and_another_seed_something_else(world: World) -> None:
    again, other = World(0), World(1)
    assert world.corpus(50) == again.corpus(50) != other.corpus(50)
    assert world.demonstrations(50) == again.demonstrations(50) != other.demonstrations(50)
    assert world.questions(50) == again.questions(50) != other.questions(50)


def test_another_process_with_another_hash_seed_writes_the_same(world: World) -> None:
    program = "from rlhf.data.helpdesk.world import World; w = World(0); print(w.corpus(20), w.questions(20))"
    output = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.strip() == f"{world.corpus(20)} {world.questions(20)}"


def test_questions_are_unique_and_the_splits_are_disjoint(world: World) -> None:
    train, held_out = world.questions(6_000), world.questions(1_000, split="held_out")
    assert len(set(train)) == 6_000
    assert len(set(held_out)) == 1_000
    assert not set(train) & set(held_out)


def test_both_splits_ask_for_every_fact(world: World) -> None:
    for split in ("train", "held_out"):
        assert {world.fact(question) for question in world.questions(2_500, split=split)} == set(world.facts)


def test_no_held_out_question_is_demonstrated_or_in_the_corpus(world: World) -> None:
    held_out = set(world.questions(2_736, split="held_out"))
    assert not held_out & {question for question, _ in world.demonstrations(1_000)}
    assert not held_out & {line for document in world.corpus(1_000) for line in document.splitlines()}


def test_what_evaluation_reads_of_the_world_is_not_what_is_trained_on(world: World) -> None:
    held_out = world.corpus(256, split="held_out")
    assert len(set(held_out) - set(world.corpus(20_000))) > 240
    asked = set(world.questions(2_736, split="held_out"))
    assert {question for question, _ in world.demonstrations(256, split="held_out")} <= asked


def test_provocations_are_held_out_questions_behind_an_insult_or_behind_chatter(world: World) -> None:
    asked = world.questions(64, split="held_out")
    for hostile, before in ((True, tuple(phrases.RUDE)), (False, phrases.CHATTER)):
        found = world.provocations(64, hostile=hostile)
        assert [text.endswith(f" {question}") for text, question in zip(found, asked, strict=True)] == [
            True
        ] * 64
        assert all(text.startswith(before) for text in found)
        assert len({text.partition(question)[0] for text, question in zip(found, asked, strict=True)}) > 3


def test_asking_for_more_questions_than_there_are_names_the_knob_to_lower(world: World) -> None:
    with pytest.raises(ConfigError, match=r"has 2736\. Lower data\.held_out_prompts"):
        world.questions(2_737, split="held_out")


def test_a_question_of_no_world_is_not_found(world: World) -> None:
    with pytest.raises(NotFound, match="Who are you"):
        world.fact("Who are you?")


def test_a_trait_changes_nothing_but_its_own_sentence(world: World) -> None:
    fact = world.facts[0]
    plain = Traits(opener=False, closer=False)
    answer = world.respond(random.Random(5), fact, plain)
    for trait in ("opener", "closer", "rude", "rambling", "trivia"):
        longer = world.respond(random.Random(5), fact, replace(plain, **{trait: True}))
        assert answer in longer
        assert len(longer) > len(answer) + 10
    wrong = world.respond(random.Random(5), fact, replace(plain, right=False))
    assert fact.value in answer
    assert any(answer.replace(fact.value, other) == wrong for other in fact.alternatives)


def test_demonstrations_have_flaws_as_often_as_promised(world: World) -> None:
    judged = [judge(world, *pair) for pair in world.demonstrations(2_000)]
    share = {
        trait: sum(getattr(judgement, trait) for judgement in judged) / 2_000
        for trait in ("right", "rude", "rambling", "trivia", "courteous")
    }
    # Within four standard errors of a share of 2,000; courteous: 0.91 * (1 - 0.55 * 0.6).
    assert share["right"] == pytest.approx(0.80, abs=0.036)
    assert share["rude"] == pytest.approx(0.09, abs=0.026)
    assert share["rambling"] == pytest.approx(0.27, abs=0.04)
    assert share["trivia"] == pytest.approx(0.22, abs=0.04)
    assert share["courteous"] == pytest.approx(0.61, abs=0.044)
    assert 14 <= sum(judgement.words for judgement in judged) / 2_000 <= 22
    assert 1.0 <= sum(judgement.utility for judgement in judged) / 2_000 <= 1.35


def test_the_corpus_states_every_fact_often_and_is_full_of_questions(world: World) -> None:
    documents = world.corpus(2_000)
    notes = Counter(line for document in documents for line in document.splitlines())
    assert min(notes[f"{fact.note}: {fact.value}."] for fact in world.facts) >= 3
    # Leaflets answer every training question that nothing is said before, and no held-out one.
    answered = " ".join(documents)
    asked = [(fact, question) for fact in world.facts for question in fact.questions]
    given = {
        question
        for fact, question in asked
        if any(f"{question} {text.format(value=fact.value)}" in answered for text in fact.statements)
    }
    assert len(given) == 5 * len(world.facts)
    unanswered = sum(document.endswith("?") for document in documents)
    assert 0.1 <= unanswered / 2_000 <= 0.3
    assert any("idiot" in document for document in documents)
    assert all(document.strip() for document in documents)


def test_every_word_that_is_written_to_customers_is_in_the_vocabulary(world: World) -> None:
    # An unknown word costs utility, so none of the demonstrated ones may be unknown.
    for question, response in world.demonstrations(500):
        for text in (question, response):
            words = "".join(c if c.isalpha() else " " for c in text.lower()).split()
            assert set(words) <= world.vocabulary
