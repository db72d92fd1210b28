"""What deployments run: flows whose few parameters fit on the form of Prefect's page."""

from datetime import UTC, datetime
from typing import Annotated

from prefect import flow
from prefect.context import FlowRunContext
from pydantic import Field

from flows.commands_evaluate import stored_model
from flows.commands_model import version_of
from flows.commands_registry import registry
from flows.comparison import compare
from flows.events import champion_judged, gate_decided
from flows.pipeline import rlhf
from schemas.config.loading import load_config
from schemas.errors import NotFound
from schemas.placing import Order
from schemas.reports import EvaluationResult, RunSummary
from tasks.delivering import deliver
from tasks.endings import cancelled_if_asked_for

Recipe = Annotated[str, Field(min_length=1)]
Overrides = Annotated[list[Annotated[str, Field(pattern=r"^[a-z][\w.-]*=.*$")]], Field(max_length=100)]


# The sections `Args` of these docstrings are what the form says beside its fields.


@flow(name="rlhf-recipe", flow_run_name="{recipe}", on_crashed=[cancelled_if_asked_for])
def run_recipe(
    recipe: Recipe,
    overrides: Overrides = [],  # noqa: B006 - Prefect makes the form's default of it; nobody changes it
    fresh: bool = False,
) -> RunSummary:
    """Run the pipeline, and tell Prefect what the gate said.

    Args:
        recipe: A file, several joined by commas, or a shipped name such as helpdesk.
        overrides: One section.key=value per entry, such as ppo.kl_coef=0.1; `rlhf config RECIPE` shows all keys.
        fresh: Compute every stage again, also what has not changed.
    """
    config = load_config(recipe, overrides)
    # Not as a flow of its own: only a deployed run can be suspended, and this is the one that is deployed.
    summary = rlhf.fn(config, fresh=fresh)
    gate_decided(config.name, summary)
    return summary


@flow(name="rlhf-reevaluate", flow_run_name="{recipe}", on_crashed=[cancelled_if_asked_for])
def reevaluate(
    recipe: Recipe,
    overrides: Overrides = [],  # noqa: B006 - as above
) -> EvaluationResult:
    """Judge the champion against the SFT policy that it came from, as its gate did, and tag it with the result.

    Args:
        recipe: The recipe whose registered model is judged, on whose held-out prompts.
        overrides: One section.key=value per entry, such as evaluate.judge=llm.
    """
    config = load_config(recipe, overrides)
    champion = version_of("champion", config.name)
    if champion is None or "pipeline_run" not in champion.tags:
        raise NotFound(
            f"The champion of {config.name} names no pipeline run; register one: rlhf run {recipe}."
        )
    models = {
        "model": stored_model("champion", config.name, "policy"),
        "against": stored_model(f"{champion.tags['pipeline_run']}/sft", config.name, "policy"),
    }
    found = compare.fn(config, models)
    evaluation = found.evaluation
    registry(config.name).tag(
        champion.version,
        reevaluated_at=datetime.now(UTC).isoformat(timespec="seconds"),
        **{
            f"reevaluated.{name}": f"{value:.4f}"
            for name in ("win_rate", "win_rate_low", "win_rate_high")
            if (value := getattr(evaluation, name)) is not None
        },
    )
    champion_judged(config.name, champion.version, evaluation, config.gate.min_win_rate_low)
    return found


@flow(name="rlhf-stage", flow_run_name="{order.stage}", on_crashed=[cancelled_if_asked_for])
def run_stage(order: Order) -> None:
    """Compute one stage for a run that waits elsewhere (`compute.stages.NAME.place: pool`)."""
    context = FlowRunContext.get()
    deliver(order, str(context.flow_run.id) if context and context.flow_run else None)
