"""What a sweep varies: dotted keys of the tree, each with alternatives or with a range to search."""

import math
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import JsonValue

from schemas.config.loading import load_config, number_or_itself
from schemas.config.run import RunConfig
from schemas.errors import ConfigError
from schemas.record import Record

Setting = dict[str, JsonValue]
"""A value for each knob, by its dotted key."""

_WANTED = "wanted section.key=value,value,... such as ppo.kl_coef=0.02,0.05,0.1"


class Knob(Record):
    """One key that is varied."""

    key: str
    values: tuple[JsonValue, ...] = ()
    """Alternatives; empty for a range."""
    low: float | None = None
    high: float | None = None

    @property
    def logarithmic(self) -> bool:
        """Whether a range is searched by its logarithm: it spans a factor of ten or more."""
        return self.low is not None and self.high is not None and 0 < self.low <= self.high / 10

    @property
    def ends(self) -> tuple[JsonValue, ...]:
        """The values that have to be valid before anything is computed."""
        return self.values or (self.low, self.high)


def read_knobs(texts: Sequence[str], *, ranges: bool) -> tuple[Knob, ...]:
    """Return the knobs that the texts name; only a search may have `low..high`.

    Raises ConfigError for what is no knob, has one alternative, names one twice, or is named twice.
    """
    knobs = tuple(_knob(text, ranges=ranges) for text in texts)
    keys = [knob.key for knob in knobs]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ConfigError(f"{twice[0]} is varied twice; name all of its values once.")
    if "seed" in keys:
        raise ConfigError(
            "seed cannot be varied as a knob; use --seeds N, or --set seed=S for another first one."
        )
    if "name" in keys:
        raise ConfigError("name cannot be varied: it names the experiment that holds the whole sweep.")
    return knobs


def settled(recipe: str, fixed: Sequence[str], setting: Setting, seed: int) -> RunConfig:
    """Return the recipe's tree with a setting and a seed."""
    # JSON is YAML, and keeps a word such as "on" a word.
    chosen = [f"{key}={_text(value)}" for key, value in setting.items()]
    return load_config(recipe, [*fixed, *chosen, f"seed={seed}"])


def label(setting: Setting, seed: int) -> str:
    """Return what a run of a sweep is called."""
    return " ".join([*(f"{key}={_text(value)}" for key, value in setting.items()), f"seed={seed}"])


def _text(value: JsonValue) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("\n...\n").strip()


def _knob(text: str, *, ranges: bool) -> Knob:
    key, separator, given = text.partition("=")
    if not separator or not all(key.split(".")):
        raise ConfigError(f"{text!r} is not a knob; {_WANTED}.")
    low, dots, high = given.partition("..")
    if (
        dots
        and isinstance(start := number_or_itself(low), float)
        and isinstance(end := number_or_itself(high), float)
    ):
        if not ranges:
            raise ConfigError(
                f"{text!r} is a range; a grid needs alternatives ({_WANTED}), or use --search optuna."
            )
        if not start < end:
            raise ConfigError(f"{text!r}: the range ends at {end:g}, which is not above {start:g}.")
        return Knob(key=key, low=start, high=end)
    values = _alternatives(text, given)
    if not values:
        raise ConfigError(f"{text!r} names no value; {_WANTED}.")
    if len(values) == 1:
        raise ConfigError(
            f"{text!r} has no alternative; {_WANTED}. What is the same in all runs goes to --set {text}."
        )
    texts = [_text(value) for value in values]
    if twice := sorted({one for one in texts if texts.count(one) > 1}):
        raise ConfigError(f"{text!r} names {twice[0]} twice; each value once.")
    return Knob(key=key, values=values)


def _alternatives(text: str, given: str) -> tuple[JsonValue, ...]:
    try:
        found: list[Any] = yaml.safe_load(f"[{given}]")
    except yaml.YAMLError:
        raise ConfigError(f"{text!r}: the values are not valid YAML; quote them.") from None
    return tuple(number_or_itself(value) for value in found)
