"""Simulated raters of the helpdesk world: they see the hidden utility through their own bias and noise.

They are served and they answer through the same store as people. Nothing that they do depends on time or chance
beyond the seed, so two machines collect the same rankings.
"""

import random
from dataclasses import replace

import polars as pl

from rlhf.data.helpdesk import raters
from rlhf.data.helpdesk.world import World, draw_traits
from rlhf.feedback import annotators, answers, assigning
from rlhf.feedback.answers import Answer
from rlhf.feedback.assigning import Served
from rlhf.feedback.database import Feedback
from rlhf.feedback.schema import Batch
from schemas.config import PreferencesConfig

_MOST_AT_ONCE = 32


def answer(
    feedback: Feedback, batch: Batch, config: PreferencesConfig, *, world_seed: int, seed: int
) -> None:
    """Let the raters take turns until none of them is served anything more."""
    world = World(world_seed)
    ids = [annotators.simulated(feedback, f"simulated-{rater}").id for rater in range(config.num_raters)]
    # Small turns spread the raters evenly over the prompts; large ones save transactions.
    turn = min(_MOST_AT_ONCE, max(1, batch.quota // (4 * config.num_raters)))
    served = True
    while served:
        served = False
        for rater, annotator_id in enumerate(ids):
            items = assigning.assign(feedback, batch.id, annotator_id, turn)
            if items:
                served = True
                given = _answers(world, items, rater=rater, noise=config.noise, seed=seed)
                answers.submit(feedback, annotator_id, given)


def _answers(world: World, items: Served, *, rater: int, noise: float, seed: int) -> list[Answer]:
    given = []
    for assignment, item in items:
        question = item.prompt[-1]["content"]
        shown = [item.responses[index] for index in assignment.order]
        ranks = raters.rank(world, question, shown, rater=rater, noise=noise, seed=seed)
        by_response = dict(zip(assignment.order, ranks, strict=True))
        given.append(
            Answer(
                assignment_id=assignment.id,
                attempt=assignment.attempt,
                ranks=tuple(by_response[index] for index in range(len(shown))),
            )
        )
    return given


def gold_questions(world_seed: int, number: int, size: int, seed: int) -> pl.DataFrame | None:
    """Return questions of which one response is right and polite, and all others are wrong; None for none."""
    if not number:
        return None
    world, rng = World(world_seed), random.Random(f"gold {seed}")
    rows = []
    for index, question in enumerate(world.questions(number)):
        fact, traits = world.fact(question), draw_traits(rng)
        best = rng.randrange(size)
        polite = replace(traits, opener=True, closer=True, rude=False, rambling=False, trivia=False)
        responses = [
            world.respond(random.Random(rng.getrandbits(64)), fact, replace(polite, right=place == best))
            for place in range(size)
        ]
        rows.append(
            {
                "prompt_id": f"gold-{index}",
                "prompt": [{"role": "user", "content": question}],
                "responses": responses,
                "finished": [True] * size,
                "ranks": [1 if place == best else 2 for place in range(size)],
            }
        )
    return pl.DataFrame(rows)
