"""The phrases that everything is assembled from, and the marks that a judge knows them by."""

from rlhf.data.helpdesk import phrases
from rlhf.data.helpdesk.world import World, normalise

MARKED = (phrases.OPENERS, phrases.CLOSERS, phrases.RUDE, phrases.RAMBLING, phrases.TRIVIA)


def test_each_mark_is_in_its_own_sentence_and_in_no_other_phrase(world: World) -> None:
    plain = [normalise(text) for fact in world.facts for text in (*fact.questions, *fact.statements)]
    plain += [f" {value} " for fact in world.facts for value in (fact.value, *fact.alternatives)]
    plain += [normalise(text) for text in (*phrases.GREETINGS, *phrases.CONTEXTS)]
    for category in MARKED:
        for sentence, mark in category.items():
            assert f" {mark} " in normalise(sentence)
            others = [normalise(text) for other in MARKED if other is not category for text in other]
            assert not any(f" {mark} " in text for text in plain + others), mark


def test_only_questions_about_numbers_and_answers_contain_digits() -> None:
    texts = [sentence for category in MARKED for sentence in category]
    texts += [*phrases.GREETINGS, *phrases.CONTEXTS, *phrases.CHATTER, *phrases.HEADINGS]
    assert not any(character.isdigit() for text in texts for character in text)
