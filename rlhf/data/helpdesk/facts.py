"""The facts that the helpdesk is asked about, each with one right value, and all questions about them."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

from rlhf.data.helpdesk import phrases

Kind = Literal["price", "hours", "sum", "policy"]


@dataclass(frozen=True)
class Fact:
    """One right answer, the ways to ask for it and the ways to state it."""

    kind: Kind
    note: str
    """What it is about, in a list: `note: value`."""
    topic: frozenset[str]
    """Names that a statement of it uses; a statement with another name of this kind is about another fact."""
    questions: tuple[str, ...]
    statements: tuple[str, ...]
    """Templates with one open slot, `{value}`."""
    value: str
    alternatives: tuple[str, ...]
    """Wrong values of the same type."""


def draw_facts(rng: random.Random) -> tuple[Fact, ...]:
    """Return all facts of a world; prices, hours and rules are drawn, sums are what they are."""
    return (*_prices(rng), *_hours(rng), *_sums(), *_policies(rng))


def _prices(rng: random.Random) -> Iterator[Fact]:
    prices = [f"{price} euros" for price in rng.sample(range(10, 60), len(phrases.PRODUCTS))]
    for name, value in zip(phrases.PRODUCTS, prices, strict=True):
        yield Fact(
            kind="price",
            note=name.capitalize(),
            topic=frozenset({name}),
            questions=tuple(text.format(product=name) for text in phrases.PRICE_QUESTIONS),
            statements=_fill(phrases.PRICE_STATEMENTS, product=name),
            value=value,
            alternatives=_without(prices, value),
        )


def _hours(rng: random.Random) -> Iterator[Fact]:
    times = {
        "open": [f"{hour} am" for hour in range(6, 12)],
        "close": [f"{hour} pm" for hour in range(4, 10)],
    }
    for shop, day, verb in product(phrases.SHOPS, phrases.DAYS, times):
        value = rng.choice(times[verb])
        yield Fact(
            kind="hours",
            note=f"{shop.capitalize()} shop {verb}s on {day}",
            topic=frozenset({shop, f"{verb}s", day.lower()}),
            questions=tuple(text.format(shop=shop, verb=verb, day=day) for text in phrases.HOURS_QUESTIONS),
            statements=_fill(phrases.HOURS_STATEMENTS, shop=shop, verb=verb, day=day),
            value=value,
            alternatives=_without(times[verb], value),
        )


def _sums() -> Iterator[Fact]:
    for a, b in combinations(range(2, 8), 2):
        yield Fact(
            kind="sum",
            note=f"{a} plus {b}",
            topic=frozenset(),
            questions=tuple(text.format(a=a, b=b) for text in phrases.SUM_QUESTIONS),
            statements=_fill(phrases.SUM_STATEMENTS, a=str(a), b=str(b)),
            value=str(a + b),
            alternatives=tuple(str(a + b + error) for error in (-1, 1, 2)),
        )


def _policies(rng: random.Random) -> Iterator[Fact]:
    for topic, (rule, values) in phrases.POLICIES.items():
        value = rng.choice(values)
        yield Fact(
            kind="policy",
            note=topic.capitalize(),
            topic=frozenset(),
            questions=tuple(text.format(topic=topic) for text in phrases.POLICY_QUESTIONS),
            statements=_fill(phrases.POLICY_STATEMENTS, rule=rule, Rule=rule[0].upper() + rule[1:]),
            value=value,
            alternatives=_without(values, value),
        )


def _fill(templates: Sequence[str], **names: str) -> tuple[str, ...]:
    """Fill every slot but `{value}`."""
    return tuple(text.format(value="{value}", **names) for text in templates)


def _without(values: Sequence[str], value: str) -> tuple[str, ...]:
    return tuple(other for other in values if other != value)
