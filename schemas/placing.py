"""What a stage hands to the processes that compute it elsewhere, and what they hand back: refs and sections as JSON."""

from pydantic import JsonValue

from schemas.pipeline import PipelineRun
from schemas.record import Record
from schemas.reports import MetricPoint


class Order(Record):
    """Which stage to compute, for which run, on what."""

    body: str
    """Module and name of the stage, such as `tasks.ppo:train_ppo`."""
    stage: str
    """What it is called in this run."""
    run: PipelineRun
    key: str
    tracked: str
    """The stage's MLflow run, which is open."""
    inputs: dict[str, JsonValue]
    """By parameter."""


class Delivery(Record):
    """What was computed."""

    result: dict[str, JsonValue]
    points: tuple[MetricPoint, ...]
    tokens: int
    sampled_tokens: int
    gradient_tokens: int


class Failure(Record):
    """Why it was not."""

    kind: str
    """Name of the error, of `schemas.errors` where it is one of those."""
    message: str


class Delivered(Record):
    """What a worker of another pool leaves in the store: one of the two."""

    tracked: str
    """The MLflow run that it has logged to."""
    delivery: Delivery | None = None
    failure: Failure | None = None
