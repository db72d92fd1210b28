"""Put together what a run needs: work over speed, or what earlier runs took for the same kind of work."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from time import time

from rlhf.estimate.memory import memory
from rlhf.estimate.work import Lengths, work
from schemas.config import RunConfig
from schemas.estimates import RunEstimate, Shape, Source, Speeds, StageEstimate, Work
from schemas.reports import StageRecord

IMPORT_SECONDS = 6.0
"""What the first stage with a model takes to import torch, transformers and TRL, on the machine of docs/results.md."""
STAGE_SECONDS = 0.5
"""What every such stage takes besides its work: it reads models, writes what it made and tells MLflow; there too."""


def predict(
    config: RunConfig,
    names: Sequence[str],
    shape: Shape,
    lengths: Lengths,
    *,
    digest: str,
    speeds: Speeds | None,
    source: Source,
    earlier: Mapping[str, float],
    bf16: bool,
    device: str,
    available: float,
    process: float,
) -> RunEstimate:
    """Return the estimate of every stage in `names`; where `earlier` knows a stage, it goes before the `speeds`.

    `process` holds the bytes that a process takes before any model is loaded.
    """
    amounts = work(config, lengths)
    held = memory(config, shape, lengths, bf16=bf16)
    stages = []
    first = next((name for name in names if amounts.get(name, Work()).tokens), None)
    for name in names:
        amount = amounts.get(name, Work())
        seconds, known = _time(name, amount, earlier, speeds, source)
        if seconds is not None and known != "earlier runs":
            seconds += STAGE_SECONDS + (IMPORT_SECONDS if name == first else 0.0)
        own = {"process": process} | held[name] if held.get(name) and process else held.get(name, {})
        stages.append(StageEstimate(name=name, work=amount, seconds=seconds, source=known, memory=own))
    total = sum(stage.seconds or 0.0 for stage in stages)
    return RunEstimate(
        recipe=config.name,
        config_digest=digest,
        made=time(),
        device=device,
        available=available,
        shape=shape,
        stages=tuple(stages),
        kilowatt_hours=config.cost.energy(total),
        price=config.cost.price(total),
        currency=config.cost.currency,
    )


def _time(
    name: str, amount: Work, earlier: Mapping[str, float], speeds: Speeds | None, source: Source
) -> tuple[float | None, Source]:
    if name in earlier:
        return earlier[name] * (amount.tokens or 1.0), "earlier runs"
    if amount.tokens and speeds is not None:
        return duration(amount, speeds), source
    return None, "not estimated"


def duration(amount: Work, speeds: Speeds) -> float:
    """Return the seconds of a stage at the given speeds."""
    return (
        amount.trained * speeds.trained
        + amount.read * speeds.read
        + (amount.drawn * speeds.drawn[amount.rows] if amount.drawn else 0.0)
    )


def rates(runs: Iterable[tuple[RunConfig, Iterable[StageRecord]]], lengths: Lengths) -> dict[str, float]:
    """Return by stage what earlier runs took: seconds per token of its work, or in all where it has none.

    Several runs count by their median. Stages that were re-used or failed say nothing.
    """
    found: dict[str, list[float]] = {}
    for config, records in runs:
        amounts = work(config, lengths)
        for record in records:
            if record.status == "ran":
                tokens = amounts.get(record.name, Work()).tokens or 1.0
                found.setdefault(record.name, []).append(record.seconds / tokens)
    return {name: median(values) for name, values in found.items()}
