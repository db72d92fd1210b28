"""Read recipes: files left to right, then dotted overrides, validated once."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from schemas.config.keys import keys_at
from schemas.config.run import RunConfig
from schemas.errors import ConfigError, NotFound
from schemas.suggest import did_you_mean


def load_config(recipe: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the validated tree of a recipe (a file, several joined by commas, or a shipped name) with overrides.

    Raises NotFound for a missing recipe and ConfigError for unreadable YAML, unknown keys and wrong values.
    """
    tree: dict[str, Any] = {}
    for part in recipe.split(","):
        _merge(tree, _read(part))
    for override in overrides:
        _apply(tree, override)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{recipe}: {_describe(error)}") from None


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return sorted(
        entry.name[:-5] for entry in resources.files("recipes").iterdir() if entry.name.endswith(".yaml")
    )


def _read(recipe: str) -> dict[str, Any]:
    path = Path(recipe)
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif recipe in shipped_recipes():
        text = (resources.files("recipes") / f"{recipe}.yaml").read_text(encoding="utf-8")
    else:
        shipped = shipped_recipes()
        meant = did_you_mean(recipe, [*shipped, *(str(path) for path in path.parent.glob("*.yaml"))])
        raise NotFound(
            f"No recipe {recipe!r}: it is neither a file nor one of the shipped ones ({', '.join(shipped)})"
            + (f"; {meant}" if meant else ".")
        )
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{recipe} is not valid YAML: {' '.join(str(error).split())}. Mend it and run again."
        ) from None
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{recipe} holds a {type(tree).__name__}; wanted a mapping of sections such as `sft:`."
        )
    return tree


def _merge(tree: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set `a.b=value` in the tree; the first segment may also be the name of an aligner."""
    path, separator, text = override.partition("=")
    if not separator or not path or not all(path.split(".")):
        raise ConfigError(
            f"{override!r} is not an override; wanted section.key=value, such as ppo.kl_coef=0.1."
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{override!r}: the value is not valid YAML; quote it.") from None
    value = number_or_itself(value)
    first, *rest = path.split(".")
    node: Any = tree
    if first not in RunConfig.model_fields:
        node = _aligner(tree, first, override)
    else:
        rest = [first, *rest]
    for key in rest[:-1]:
        if not isinstance(node.setdefault(key, {}) or {}, dict):
            raise ConfigError(f"{override!r}: {key!r} is a {type(node[key]).__name__}, not a section.")
        node[key] = node[key] or {}
        node = node[key]
    if not rest:
        raise ConfigError(
            f"{override!r} names a whole aligner; name one of its keys, such as {first}.learning_rate."
        )
    node[rest[-1]] = value


def _aligner(tree: dict[str, Any], name: str, override: str) -> dict[str, Any]:
    aligners = tree.setdefault(
        "aligners", [{"method": aligner.method} for aligner in RunConfig.model_fields["aligners"].default]
    )
    known = [entry.get("name", entry.get("method")) for entry in aligners]
    if name not in known:
        meant = did_you_mean(name, [*RunConfig.model_fields, *map(str, known)])
        raise ConfigError(
            f"{override!r}: no section and no aligner is called {name!r}; "
            f"sections: {', '.join(RunConfig.model_fields)}; aligners of this recipe: {', '.join(map(str, known))}"
            + (f"; {meant}" if meant else ".")
        )
    entry: dict[str, Any] = aligners[known.index(name)]
    return entry


def number_or_itself(value: Any) -> Any:
    """Return a text such as 1e-4, which YAML 1.1 does not take for a number, as one; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _describe(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "recipe"
        if item["type"] == "extra_forbidden":
            *parents, name = item["loc"]
            meant = did_you_mean(str(name), keys_at(parents))
            lines.append(f"unknown key {where}" + (f" ({meant})" if meant else ""))
        else:
            lines.append(
                f"{where}: {item['msg'].removeprefix('Value error, ')} (found {item['input']!r:.80})"
            )
    return (
        "; ".join(lines[:5]) + ". Correct the recipe or the override; `rlhf config` shows the resolved tree."
    )
