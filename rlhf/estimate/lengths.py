"""How long prompts and responses are, from the first rows of the recipe's own data."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from statistics import fmean

import orjson

from rlhf.data.helpdesk.world import World
from rlhf.data.readers import open_source
from rlhf.data.records import Json, Limits, Raw
from rlhf.estimate.work import Lengths
from schemas.config import RunConfig

_ROWS = 200
_CHARACTERS_PER_TOKEN = {"small": 2.4, "large": 4.0}
"""English text in byte-level BPE: with a vocabulary of a few hundred (the helpdesk world's), and of tens of thousands."""
_SMALL_VOCABULARY = 4_000


def lengths_of(config: RunConfig, files: dict[str, list[Path]], vocabulary: int) -> Lengths:
    """Return mean lengths in tokens; `files` holds the recipe's demonstrations or preferences, if it names any."""
    size = _CHARACTERS_PER_TOKEN["small" if vocabulary < _SMALL_VOCABULARY else "large"]
    if config.data.source == "helpdesk":
        pairs = World(config.seed).demonstrations(_ROWS)
        prompt, response = (fmean(len(pair[side]) for pair in pairs) for side in (0, 1))
    elif files["demonstrations"]:
        prompt = response = _characters(files["demonstrations"]) / 2
    else:  # a pair holds its prompt once or twice and two responses: half of it is about one sequence
        prompt = response = _characters(files["preferences"]) / 4
    return Lengths(prompt=prompt / size, response=response / size)


def _characters(paths: Iterable[Path]) -> float:
    """Return the mean characters of a row's texts, over the first rows."""
    rows = islice((row for path in paths for row in open_source(path, Limits()).records), _ROWS)
    found = [sum(map(len, _texts(_value(row)))) for row in rows if row.defect is None]
    return fmean(found) if found else 0.0


def _value(row: Raw) -> Json:
    if row.value is not None:
        return dict(row.value)
    try:
        parsed: Json = orjson.loads(row.data)
    except orjson.JSONDecodeError:  # validation will say so
        return None
    return parsed


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
