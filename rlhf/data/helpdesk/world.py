"""The helpdesk world: all that is written in it, from a seed. It knows nothing of what people prefer."""

import random
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal, get_args

from rlhf.data.helpdesk import phrases
from rlhf.data.helpdesk.facts import Fact, Kind, draw_facts
from schemas.errors import ConfigError, NotFound

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Traits:
    """What a response is like; everything else about it is drawn."""

    right: bool = True
    opener: bool = True
    closer: bool = True
    rude: bool = False
    rambling: bool = False
    trivia: bool = False


def normalise(text: str) -> str:
    """Return the words and numbers of a text in lower case, a single space before and after each."""
    return f" {' '.join(re.findall(r'[a-z]+|[0-9]+', text.lower()))} "


class World:
    """A small world of facts, and the questions, answers and documents that people write about them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.facts = draw_facts(self._random("facts"))

    def corpus(self, n: int, *, split: Split = "train") -> list[str]:
        """Return n raw documents: leaflets, questions, lists, rambling, trivia, forum threads, some good answers.

        The splits are drawn apart from the same kinds of documents.
        """
        rng = self._random("corpus" if split == "train" else "corpus held_out")
        kinds, weights = zip(*_DOCUMENTS.items(), strict=True)
        return [getattr(self, f"_{kind}")(rng) for kind in rng.choices(kinds, weights, k=n)]

    def demonstrations(self, n: int, *, split: Split = "train") -> list[tuple[str, str]]:
        """Return n questions of a split with an answer each, mostly good and still flawed."""
        rng = self._random("demonstrations" if split == "train" else "demonstrations held_out")
        pairs = (rng.choice(self._asked[split]) for _ in range(n))
        return [(question, self.respond(rng, fact, draw_traits(rng))) for question, fact in pairs]

    def questions(self, n: int, *, split: Split = "train") -> list[str]:
        """Return n different questions; the splits share facts, but no phrasing of the same fact."""
        asked = self._asked[split]
        if n > len(asked):
            raise ConfigError(
                f"Asked for {n} different questions ({split}); the helpdesk world has {len(asked)}. "
                f"Lower data.{'prompts' if split == 'train' else 'held_out_prompts'}."
            )
        return [question for question, _ in self._random(f"questions {split}").sample(asked, n)]

    def provocations(self, n: int, *, hostile: bool) -> list[str]:
        """Return n held-out questions behind an insult, which an imitator may give back, or behind harmless chatter."""
        before = _RUDE if hostile else phrases.CHATTER
        rng = self._random(f"provocations {hostile}")
        return [f"{rng.choice(before)} {question}" for question in self.questions(n, split="held_out")]

    def fact(self, question: str) -> Fact:
        """Return the fact that a question asks for."""
        if question not in self._fact_by_question:
            raise NotFound(
                f"No fact of this helpdesk world answers {question!r}; wanted one of its own questions. "
                "Judge with the world (seed) that the question comes from."
            )
        return self._fact_by_question[question]

    def respond(self, rng: random.Random, fact: Fact, traits: Traits) -> str:
        """Write a response; from equal states of `rng`, responses differ only where their traits differ."""
        # Parts that are left out are drawn as well, so that no trait changes the wording of another.
        opener, rude, statement = rng.choice(_OPENERS), rng.choice(_RUDE), rng.choice(fact.statements)
        wrong, trivia, rambling = rng.choice(fact.alternatives), rng.choice(_TRIVIA), rng.choice(_RAMBLING)
        closer = rng.choice(_CLOSERS)
        parts = (
            (traits.opener, opener),
            (traits.rude, rude),
            (True, statement.format(value=fact.value if traits.right else wrong)),
            (traits.trivia, trivia),
            (traits.rambling, rambling),
            (traits.closer, closer),
        )
        return " ".join(text for present, text in parts if present)

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """Every word (not number) that a response or a question of this world can contain."""
        texts = [*phrases.GREETINGS, *phrases.CONTEXTS, *_OPENERS, *_CLOSERS, *_RUDE, *_RAMBLING, *_TRIVIA]
        for fact in self.facts:
            texts += [*fact.questions, *fact.statements, fact.value, *fact.alternatives]
        return frozenset(" ".join(map(normalise, texts)).split())

    @cached_property
    def names(self) -> dict[Kind, frozenset[str]]:
        """Return the names that statements of each kind use (see `Fact.topic`)."""
        return {
            kind: frozenset[str]().union(*(fact.topic for fact in self.facts if fact.kind == kind))
            for kind in get_args(Kind)
        }

    @cached_property
    def _asked(self) -> dict[Split, list[tuple[str, Fact]]]:
        """All questions of each split, each with its fact."""
        asked: dict[Split, list[tuple[str, Fact]]] = {"train": [], "held_out": []}
        beginnings = [" ".join(filter(None, pair)) for pair in product(phrases.GREETINGS, phrases.CONTEXTS)]
        for index, fact in enumerate(self.facts):
            for phrasing, text in enumerate(fact.questions):
                # One phrasing of each fact is held out, another one from fact to fact.
                split: Split = "held_out" if (index + phrasing) % len(fact.questions) == 0 else "train"
                asked[split] += [(f"{beginning} {text}".lstrip(), fact) for beginning in beginnings]
        return asked

    @cached_property
    def _plain_questions(self) -> list[tuple[Fact, str]]:
        """The training questions without anything said before them, each with its fact."""
        return [(fact, question) for question, fact in self._asked["train"] if question in fact.questions]

    @cached_property
    def _fact_by_question(self) -> dict[str, Fact]:
        return dict(self._asked["train"] + self._asked["held_out"])

    def _random(self, purpose: str) -> random.Random:
        # A string is hashed with SHA-512: purposes share no numbers, and every process draws the same.
        return random.Random(f"helpdesk {self.seed} {purpose}")

    def _question(self, rng: random.Random) -> str:
        return rng.choice(self._asked["train"])[0]

    def _state(self, rng: random.Random) -> str:
        fact = rng.choice(self.facts)
        return rng.choice(fact.statements).format(value=fact.value)

    def _questions_only(self, rng: random.Random) -> str:
        return "\n".join(self._question(rng) for _ in range(rng.randint(2, 4)))

    def _list(self, rng: random.Random) -> str:
        lines = (f"{fact.note}: {fact.value}." for fact in rng.sample(self.facts, rng.randint(4, 7)))
        return "\n".join([rng.choice(phrases.HEADINGS), *lines])

    def _statements(self, rng: random.Random) -> str:
        return " ".join(self._state(rng) for _ in range(rng.randint(3, 6)))

    def _leaflet(self, rng: random.Random) -> str:
        lines = [rng.choice(phrases.HEADINGS)]
        for _ in range(rng.randint(2, 4)):
            fact, question = rng.choice(self._plain_questions)
            lines.append(f"{question} {rng.choice(fact.statements).format(value=fact.value)}")
        return "\n".join(lines)

    def _answered(self, rng: random.Random) -> str:
        lines = []
        for _ in range(rng.randint(1, 3)):
            question, fact = rng.choice(self._asked["train"])
            lines += [question, self.respond(rng, fact, draw_traits(rng, wrong=0.05))]
        return "\n".join(lines)

    def _forum(self, rng: random.Random) -> str:
        lines = [self._question(rng), rng.choice(phrases.CHATTER), rng.choice(_RUDE)]
        replies = (rng.choice(_RUDE), rng.choice(phrases.CHATTER), self._question(rng), self._state(rng))
        return "\n".join(lines + rng.sample(replies, rng.randint(1, 2)))

    def _ramble(self, rng: random.Random) -> str:
        return " ".join([*rng.sample(_RAMBLING, 3), self._state(rng), rng.choice(_RAMBLING)])

    def _trivia(self, rng: random.Random) -> str:
        return " ".join([*rng.sample(_TRIVIA, 3), self._question(rng)])


def draw_traits(rng: random.Random, *, wrong: float = 0.2) -> Traits:
    """Draw what a demonstration is like: often courteous, now and then rude, rambling or full of trivia."""
    rude = rng.random() < 0.09
    return Traits(
        right=rng.random() >= wrong,
        # Nobody is rude and courteous in one breath.
        opener=rng.random() < 0.45 and not rude,
        closer=rng.random() < 0.4 and not rude,
        rude=rude,
        rambling=rng.random() < 0.27,
        trivia=rng.random() < 0.22,
    )


_OPENERS, _CLOSERS, _RUDE, _RAMBLING, _TRIVIA = map(
    tuple, (phrases.OPENERS, phrases.CLOSERS, phrases.RUDE, phrases.RAMBLING, phrases.TRIVIA)
)
_DOCUMENTS = {
    "leaflet": 35, "answered": 35, "statements": 7, "questions_only": 7, "forum": 6, "list": 5, "ramble": 3,
    "trivia": 3,
}  # fmt: skip
"""Kinds of documents and their weights."""
