"""`rlhf estimate`: memory, time and cost of a run, before anything of it has run."""

from typing import Annotated

import typer

from flows.commands_run import Json, Overrides, Recipe, stage_names
from flows.environment import prepare
from flows.terminal import say, show, show_json, show_table
from schemas.config.loading import load_config
from schemas.estimates import RunEstimate, StageEstimate
from schemas.settings import Settings
from schemas.units import duration, size

NO_ROOM = (
    "it does not fit; train adapters (sft.lora.rank=8 and so on), set micro_batch_size or gradient_checkpointing=true, "
    "or share the trunk (ppo.shared_trunk=true)"
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(estimate)


def estimate(
    recipe: Recipe,
    overrides: Overrides = None,
    flops: Annotated[
        float | None,
        typer.Option(min=1, help="Of another machine: operations per second that it reaches, such as 3e14."),
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option(min=1, help="And its bytes of memory traffic per second, such as 2e12.")
    ] = None,
    json: Json = False,
) -> None:
    """Say how much memory, time and money a run needs; the report says afterwards how far that was off."""
    config = load_config(recipe, overrides or [])
    prepare(Settings())
    from tasks.estimate import estimate as foresee

    say("looking at the model, the data, and earlier runs or this machine's speed")
    found = foresee(config, stage_names(config), flops=flops, bandwidth=bandwidth)
    if json:
        show_json(found, status="done", seconds=found.seconds, bytes=found.bytes)
        return
    show_table(("stage", "tokens", "time", "from", "memory"), [_row(stage) for stage in found.stages])
    show("")
    for line in _summary(found):
        show(line)


def _row(stage: StageEstimate) -> tuple[str, ...]:
    return (
        stage.name,
        f"{stage.work.tokens:,.0f}" if stage.work.tokens else "-",
        "-" if stage.seconds is None else duration(stage.seconds),
        stage.source,
        size(stage.bytes) if stage.memory else "-",
    )


def _summary(found: RunEstimate) -> list[str]:
    largest = max(found.stages, key=lambda stage: stage.bytes)
    parts = sorted(largest.memory.items(), key=lambda part: -part[1])
    lines = [
        f"model: {found.shape.parameters:,} parameters in {found.shape.layers} layers",
        f"time: {duration(found.seconds)} on one device ({found.device}), if nothing is re-used",
        f"memory: {size(found.bytes)} for {largest.name}"
        + (f" of {size(found.available)} free" if found.available else "")
        + f" ({', '.join(f'{name} {size(amount)}' for name, amount in parts[:4])})",
    ]
    if found.available and found.bytes > found.available:
        lines.append(NO_ROOM)
    if found.kilowatt_hours is not None:
        lines.append(f"energy: {found.kilowatt_hours:.3g} kWh")
    if found.price is not None:
        lines.append(f"cost: {found.price:,.2f} {found.currency}")
    return lines
