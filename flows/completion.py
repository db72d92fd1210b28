"""What the shell offers after Tab: recipes, stages, and the keys of the tree. `rlhf --install-completion` turns it on."""

from pathlib import Path

from schemas.config.keys import every_key
from schemas.config.loading import shipped_recipes
from schemas.config.run import STAGES, RunConfig


def recipes(incomplete: str) -> list[str]:
    """Offer the shipped recipes, and YAML files and folders here."""
    files = [str(path) + ("/" if path.is_dir() else "") for path in sorted(Path().glob(f"{incomplete}*"))]
    here = [name for name in files if name.endswith((".yaml", ".yml", "/"))]
    return [name for name in [*shipped_recipes(), *here] if name.startswith(incomplete)]


def overrides(incomplete: str) -> list[str]:
    """Offer the keys that a recipe has, up to the equals sign."""
    return [f"{key}=" for key in every_key() if key.startswith(incomplete)]


def stages(incomplete: str) -> list[str]:
    """Offer stages, and aligners under the names that they have by default."""
    aligners = {key.partition(".")[0] for key in every_key()} - set(RunConfig.model_fields)
    names = (*STAGES, *sorted(aligners), *(f"evaluate-{name}" for name in ("sft", *sorted(aligners))))
    return [name for name in names if name.startswith(incomplete)]
