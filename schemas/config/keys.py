"""Which keys the configuration tree has: for mistakes in a recipe, and for the shell's completion."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from schemas.config.run import RunConfig


def keys_at(location: Sequence[str | int]) -> list[str]:
    """Return the keys that the tree may have where validation stood: names, positions and tags of unions lead there."""
    found: list[type[BaseModel]] = [RunConfig]
    for part in location:
        if isinstance(part, int):
            continue
        inside = [
            section
            for model in found
            if part in model.model_fields
            for section in _sections(model.model_fields[part].annotation)
        ]
        tagged = [model for model in found if part in _tags(model)]
        # What is neither a field nor a tag is the key of a mapping, such as a rule's name.
        found = inside or tagged or found
    return sorted({name for model in found for name in model.model_fields})


def every_key() -> list[str]:
    """Return the dotted path of every value that an override can set; aligners by the name that they have by default."""
    aligners = _sections(RunConfig.model_fields["aligners"].annotation)
    named = [(aligner.model_fields["method"].default, aligner) for aligner in aligners]
    paths = {f"{name}.{path}" for name, aligner in named for path in _paths(aligner)}
    return sorted(paths.union(path for path in _paths(RunConfig) if not path.startswith("aligners")))


def _paths(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        sections = _sections(field.annotation)
        if not sections:
            yield name
        for section in sections:
            yield from (f"{name}.{path}" for path in _paths(section))


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections inside an annotation such as `tuple[A | B, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _tags(model: type[BaseModel]) -> set[Any]:
    """Return what tells a section from the others of its union."""
    return {field.default for name, field in model.model_fields.items() if name in {"method", "source"}}
