"""A starter project for one's own data: a recipe, example files in the layouts that are common, and what to do with them."""

import csv
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from rlhf.data.helpdesk.world import Traits, World, draw_traits

DOCUMENTS, DEMONSTRATIONS, PAIRS, PROMPTS, EVALUATION = 1500, 300, 400, 128, 96


def write_starter(folder: Path, name: str) -> list[Path]:
    """Write the project and return its files; `name` becomes the recipe's. The folder must not hold any of them."""
    written: list[Path] = []
    _copy(resources.files("recipes") / "starter", folder, name, written)
    (folder / "data").mkdir()
    written += _examples(folder / "data")
    ignore = folder / ".gitignore"
    ignore.write_text(".rlhf/\nchecked/\n", encoding="utf-8")
    return [*written, ignore]


def _copy(source: Traversable, target: Path, name: str, written: list[Path]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        path = target / entry.name
        if entry.is_dir():
            _copy(entry, path, name, written)
        else:
            path.write_text(entry.read_text(encoding="utf-8").replace("PROJECT", name), encoding="utf-8")
            written.append(path)


def _examples(folder: Path) -> list[Path]:
    """Write what a small shop could have: the helpdesk world's texts in five layouts."""
    world, rng = World(seed=0), random.Random("starter")
    documents = "\n\n".join(world.corpus(DOCUMENTS))
    (folder / "corpus.txt").write_text(f"{documents}\n", encoding="utf-8")
    conversations = (
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in world.demonstrations(DEMONSTRATIONS)
    )
    questions = world.questions(PAIRS + PROMPTS)
    held_out = world.questions(EVALUATION, split="held_out")
    _lines(folder / "demonstrations.jsonl", conversations)
    _lines(folder / "preferences.jsonl", (_pair(world, rng, asked) for asked in questions[:PAIRS]))
    _lines(folder / "evaluation.jsonl", ({"prompt": asked} for asked in held_out))
    with (folder / "prompts.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["prompt"], *([asked] for asked in questions[PAIRS:])])
    return sorted(folder.iterdir())


def _pair(world: World, rng: random.Random, question: str) -> dict[str, str]:
    """Return a right and courteous response, and one to the same question with a flaw or two."""
    better = Traits(opener=rng.random() < 0.7, closer=True)
    worse = replace(draw_traits(rng), right=rng.random() < 0.4, closer=False, opener=False)
    fact = world.fact(question)
    return {
        "prompt": question,
        "chosen": world.respond(rng, fact, better),
        "rejected": world.respond(rng, fact, worse),
    }


def _lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
