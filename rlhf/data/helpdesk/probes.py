"""Counterfactual pairs: they tell which flaws a reward model sees, and so what an aligner will exploit."""

import random
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Literal, get_args

from rlhf.data.helpdesk.world import Traits, World, draw_traits

Flaw = Literal["wrong", "rude", "rambling", "trivia", "discourteous"]
FLAWS: tuple[Flaw, ...] = get_args(Flaw)


@dataclass(frozen=True)
class CounterfactualPair:
    """Two responses, word for word equal but for one flaw of the worse one."""

    flaw: Flaw
    question: str
    better: str
    worse: str


def counterfactual_pairs(world: World, n: int, seed: int) -> list[CounterfactualPair]:
    """Return n pairs on held-out questions, the flaws in turn."""
    rng = random.Random(f"probes {seed}")
    questions = world.questions(n, split="held_out")
    return [
        _pair(world, rng, question, flaw) for question, flaw in zip(questions, cycle(FLAWS), strict=False)
    ]


def _pair(world: World, rng: random.Random, question: str, flaw: Flaw) -> CounterfactualPair:
    fact, traits, draw = world.fact(question), draw_traits(rng), rng.getrandbits(64)
    better, worse = (
        world.respond(random.Random(draw), fact, _with(traits, flaw, present=present))
        for present in (False, True)
    )
    return CounterfactualPair(flaw, question, better, worse)


def _with(traits: Traits, flaw: Flaw, *, present: bool) -> Traits:
    if flaw == "wrong":
        return replace(traits, right=not present)
    if flaw == "discourteous":
        return replace(traits, opener=not present, closer=not present)
    return replace(traits, **{flaw: present})
