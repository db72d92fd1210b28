"""What a deployment runs: a recipe by name, so that its parameters fit on a form."""

from prefect import flow

from flows.pipeline import rlhf
from schemas.config.loading import load_config
from schemas.reports import RunSummary


@flow(name="rlhf-recipe", flow_run_name="{recipe}")
def run_recipe(recipe: str, overrides: list[str] | None = None, fresh: bool = False) -> RunSummary:
    """Run the pipeline on a recipe.

    Args:
        recipe: A file, several joined by commas, or a shipped name such as helpdesk.
        overrides: One section.key=value per entry, such as ppo.kl_coef=0.1; `rlhf config RECIPE` shows all keys.
        fresh: Compute every stage again, also what has not changed.
    """
    # Not as a flow of its own: only a deployed run can be suspended, and this is the one that is deployed.
    return rlhf.fn(load_config(recipe, overrides or []), fresh=fresh)
