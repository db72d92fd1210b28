"""From messages to token ids: what is learnt, what is compared, and what a reward model reads."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from rlhf.conformance.backend import Backend, Models
from rlhf.conformance.models import BOS, EOS, ask, id_of, ids_asked, tokenizer, with_bos

PROMPT = ask("hi there?")
ANSWER, OTHER = "we open at nine", "go away, please"
STAGES = ("sft", "reward", "dpo")


def _encoded(backend: Backend, stage: str, models: Models, answer: str) -> tuple[list[int], list[int] | None]:
    """Return the ids of prompt and answer, and where the stage knows them, those of the answer alone."""
    if stage == "sft":
        ids, labels = backend.demonstration(models, PROMPT, answer)
        return ids, [label for label in labels if label != -100]
    if stage == "reward":
        pair = backend.comparison(models, PROMPT, answer, OTHER)
        assert pair is not None
        return pair[0], None
    triple = backend.preference(models, PROMPT, answer, OTHER)
    assert triple is not None
    return triple[0] + triple[1], triple[1]


def _asked(models: Models) -> list[int]:
    """Return what the policy will read when it is to answer."""
    return ids_asked(models.tokenizer, PROMPT)


def _plain(models: Models, text: str) -> list[int]:
    return list(models.tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.item(6)
@pytest.mark.parametrize("stage", STAGES)
def test_no_sequence_begins_with_two_bos(backend: Backend, models: Models, stage: str) -> None:
    """The template writes one, and a tokenizer would add another."""
    models = replace(models, tokenizer=with_bos())
    ids, _ = _encoded(backend, stage, models, ANSWER)
    assert ids.count(id_of(models.tokenizer, BOS)) == 1


@pytest.mark.item(7, 9)
@pytest.mark.parametrize("stage", STAGES)
def test_a_prompt_reads_in_training_as_it_does_in_sampling(
    backend: Backend, models: Models, stage: str
) -> None:
    """Its ids come first, once per turn a role marker, and the loss counts what follows and nothing else."""
    ids, answer = _encoded(backend, stage, models, ANSWER)
    asked = _asked(models)
    assert ids[: len(asked)] == asked
    assert ids.count(id_of(models.tokenizer, "<|im_start|>")) == 2
    assert answer is None or answer == ids[len(asked) :]


@pytest.mark.item(7)
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_an_answer_that_begins_with_line_breaks_changes_no_prompt(
    backend: Backend, models: Models, stage: str
) -> None:
    """The template ends the prompt with a line break, and tokenizers have one token for several."""
    ids, _ = _encoded(backend, stage, models, "\n\nwe open")
    asked = _asked(models)
    assert ids[: len(asked)] == asked


@pytest.mark.item(8, trainer="sft")
@pytest.mark.parametrize("pad", ["pad", "eos"])
def test_eos_is_learnt_once(backend: Backend, models: Models, pad: str) -> None:
    """Also where the pad token is EOS: a mask that is made of ids would hide it."""
    words = tokenizer()
    if pad == "eos":
        words.pad_token = EOS
    _, labels = backend.demonstration(replace(models, tokenizer=words), PROMPT, ANSWER)
    assert labels.count(words.eos_token_id) == 1


@pytest.mark.item(10)
@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_pairs_that_the_cut_makes_equal_are_left_out(backend: Backend, models: Models, stage: str) -> None:
    """They teach nothing, and their loss of ln 2 hides what the others learn."""
    find = backend.comparison if stage == "reward" else backend.preference
    length = len(_asked(models)) + 2
    assert find(models, PROMPT, ANSWER + OTHER, ANSWER + ANSWER, length) is None


@pytest.mark.item(11)
@pytest.mark.parametrize("stage", ["reward", "dpo"])
def test_no_eos_is_stamped_onto_a_text_that_was_cut(backend: Backend, models: Models, stage: str) -> None:
    """A cut text ends in the token that stood there, unless it is left out altogether."""
    length = len(_asked(models)) + 3
    expected = _plain(models, ANSWER * 5)[:3]
    if stage == "reward":
        pair = backend.comparison(models, PROMPT, ANSWER * 5, OTHER * 5, length)
        assert pair is None or pair[0][-3:] == expected
    else:
        triple = backend.preference(models, PROMPT, ANSWER * 5, OTHER * 5, length)
        assert triple is None or triple[1] == expected


@pytest.mark.item(5)
def test_the_reward_model_reads_the_ids_that_it_was_trained_on(
    backend: Backend, models: Models, online: str
) -> None:
    """For the same question and the same finished answer."""
    trained = backend.comparison(models, PROMPT, ANSWER, OTHER)
    response = [*_plain(models, ANSWER), _eos(models)]
    read, _ = backend.judged(online, models, PROMPT, response)
    assert trained is not None
    assert read == trained[0]


@pytest.mark.item(5)
def test_the_reward_model_reads_texts_without_template_as_it_was_trained_on_them(
    backend: Backend, models: Models, online: str
) -> None:
    """Where prompts are plain texts, too: with EOS in both places or in none."""
    trained = backend.comparison(models, "hi there? ", ANSWER, OTHER)
    response = [*_plain(models, ANSWER), _eos(models)]
    read, _ = backend.judged(online, models, "hi there? ", response)
    assert trained is not None
    assert read == trained[0]


@pytest.mark.item(12)
def test_a_response_that_ran_out_of_room_is_not_judged_as_finished(
    backend: Backend, models: Models, online: str
) -> None:
    """The same words with and without EOS are two different responses."""
    words = _plain(models, ANSWER)
    cut, _ = backend.judged(online, models, PROMPT, words)
    finished, _ = backend.judged(online, models, PROMPT, [*words, _eos(models)])
    assert cut != finished
    assert _eos(models) not in _after_question(cut, models)


@pytest.mark.item(14)
def test_what_is_trained_on_is_what_was_sampled(backend: Backend, models: Models, online: str) -> None:
    """Letter by letter: the tokenizer would have spelt it otherwise."""
    spelt = [id_of(models.tokenizer, letter) for letter in "open"]
    assert spelt != _plain(models, "open")
    _, trained = backend.judged(online, models, PROMPT, [*spelt, _eos(models)])
    assert trained == [*spelt, _eos(models)]


def _after_question(ids: Sequence[int], models: Models) -> Sequence[int]:
    return ids[len(_asked(models)) :]


def _eos(models: Models) -> int:
    return id_of(models.tokenizer, EOS)
