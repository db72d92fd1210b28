"""Write the helpdesk world's data as the files that a user would bring."""

import json
from collections.abc import Iterable
from pathlib import Path

from rlhf.data.helpdesk.world import World
from schemas.config.data import HelpdeskData

HELD_OUT = 96
"""Documents, demonstrations, and questions behind an insult or behind chatter, that only evaluation reads."""


def write_files(world: World, config: HelpdeskData, folder: Path) -> dict[str, Path]:
    """Write one JSON Lines file per table and return them by table; see `ValidatedData`."""
    provoking = min(HELD_OUT, config.held_out_prompts)
    rows: dict[str, Iterable[dict[str, str]]] = {
        "corpus": ({"text": text} for text in world.corpus(config.documents)),
        "demonstrations": (
            {"prompt": question, "completion": answer}
            for question, answer in world.demonstrations(config.demonstrations)
        ),
        "prompts": ({"prompt": question} for question in world.questions(config.prompts)),
        "held_out": (
            {"prompt": question} for question in world.questions(config.held_out_prompts, split="held_out")
        ),
        "held_out_text": ({"text": text} for text in world.corpus(HELD_OUT, split="held_out")),
        "held_out_demonstrations": (
            {"prompt": question, "completion": answer}
            for question, answer in world.demonstrations(HELD_OUT, split="held_out")
        ),
        "red_team": ({"prompt": asked} for asked in world.provocations(provoking, hostile=True)),
        "benign": ({"prompt": asked} for asked in world.provocations(provoking, hostile=False)),
    }
    paths = {}
    for name, table in rows.items():
        paths[name] = folder / f"{name}.jsonl"
        with paths[name].open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in table)
    return paths
