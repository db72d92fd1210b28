"""The hidden utility of a response ('gold'). Raters and evaluation see it; no training stage imports it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rlhf.data.helpdesk import phrases
from rlhf.data.helpdesk.facts import Fact
from rlhf.data.helpdesk.world import World, normalise

RIGHT = 1.5
COURTEOUS_OPENING = 0.5
COURTEOUS_CLOSING = 0.5
RUDE = -1.5
RAMBLING = -0.6
TRIVIA = -0.5
PER_WORD_OVER = -0.03
ENOUGH_WORDS = 25
PER_UNKNOWN_WORD = -0.3
MOST_UNKNOWN_WORDS = 10
EMPTY = -2.0


@dataclass(frozen=True)
class Judgement:
    """What a response is like, and what it is worth: 2.5 at best."""

    utility: float
    right: bool
    rude: bool
    courteous: bool
    """It opens or closes with courtesy; each pays once, however often it is repeated."""
    rambling: bool
    """It drifts, or says a sentence twice."""
    trivia: bool
    words: int


def judge(world: World, question: str, response: str) -> Judgement:
    """Judge a response by what it says; case, spacing and punctuation do not matter."""
    text = normalise(response)
    words = text.split()
    right = _is_right(world, world.fact(question), text)
    opening, closing = _has(text, phrases.OPENERS.values()), _has(text, phrases.CLOSERS.values())
    rude, trivia = _has(text, phrases.RUDE.values()), _has(text, phrases.TRIVIA.values())
    rambling = _has(text, phrases.RAMBLING.values()) or _repeats(response)
    # Characters that belong to no word or number (other scripts, symbols) are as unknown as strange words.
    strange = len(re.findall(r"[^\sa-z0-9.,:;!?'\"()-]+", response.lower()))
    unknown = strange + sum(not word.isdigit() and word not in world.vocabulary for word in words)
    utility = (
        RIGHT * right
        + COURTEOUS_OPENING * opening
        + COURTEOUS_CLOSING * closing
        + RUDE * rude
        + RAMBLING * rambling
        + TRIVIA * trivia
        + PER_WORD_OVER * max(0, len(words) - ENOUGH_WORDS)
        + PER_UNKNOWN_WORD * min(unknown, MOST_UNKNOWN_WORDS)
        + EMPTY * (not words)
    )
    return Judgement(utility, right, rude, opening or closing, rambling, trivia, len(words))


def _is_right(world: World, fact: Fact, text: str) -> bool:
    """Whether the right value is stated, no other of its type, and no name of another fact of this kind."""
    names = set(text.split()) & world.names[fact.kind]
    return names <= fact.topic and _stated(fact, text) == {fact.value}


def _stated(fact: Fact, text: str) -> set[str]:
    """Return the values in a text that could answer for this fact; numbers are written in digits."""
    if fact.kind == "policy":
        return {value for value in (fact.value, *fact.alternatives) if f" {value} " in text}
    if fact.kind == "hours":
        return set(re.findall(r"[0-9]+ [ap]m", text))
    numbers = set(re.findall(r"[0-9]+", text))
    if fact.kind == "sum":
        return numbers - set(re.findall(r"[0-9]+", fact.note))  # the operands may be repeated
    return {f"{number} euros" for number in numbers}


def _has(text: str, marks: Iterable[str]) -> bool:
    return any(f" {mark} " in text for mark in marks)


def _repeats(response: str) -> bool:
    sentences = [sentence for part in re.split(r"[.!?\n]", response) if (sentence := normalise(part).strip())]
    return len(set(sentences)) < len(sentences)
