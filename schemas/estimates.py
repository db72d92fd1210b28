"""What a run is expected to need, before anything of it has run."""

from typing import Literal

from pydantic import Field

from schemas.record import Record

Source = Literal["earlier runs", "measured here", "given speeds", "not estimated"]


class Shape(Record):
    """What decides how much memory and arithmetic a causal language model takes."""

    parameters: int
    layers: int
    hidden: int
    heads: int
    key_values: int
    """Width of the keys of one position in one layer: heads that have their own times their width."""
    vocabulary: int


class Work(Record):
    """Tokens of a stage, by what is done with them."""

    trained: float = 0.0
    """Forward and backward."""
    read: float = 0.0
    """Forward only."""
    drawn: float = 0.0
    """Sampled one after the other."""
    rows: int = 1
    """Sequences sampled together."""

    @property
    def tokens(self) -> float:
        """All of them; a measure of the stage's size, not of its time."""
        return self.trained + self.read + self.drawn


class Speeds(Record):
    """Seconds per token on one device."""

    trained: float
    read: float
    drawn: dict[int, float]
    """By the number of sequences that are sampled together."""


class StageEstimate(Record):
    """One stage, as it is expected."""

    name: str
    work: Work = Work()
    seconds: float | None = None
    source: Source = "not estimated"
    memory: dict[str, float] = Field(default_factory=dict)
    """Bytes on the device, by what holds them."""

    @property
    def bytes(self) -> float:
        """Memory of the stage."""
        return sum(self.memory.values())


class RunEstimate(Record):
    """A run that re-uses nothing."""

    recipe: str
    config_digest: str
    made: float
    """Seconds since the epoch."""
    device: str
    available: float
    """Bytes that the device has free."""
    shape: Shape
    stages: tuple[StageEstimate, ...]
    kilowatt_hours: float | None = None
    price: float | None = None
    currency: str = "USD"

    @property
    def seconds(self) -> float:
        """Of all stages whose time is estimated, one after the other."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    @property
    def bytes(self) -> float:
        """Memory that the largest stage takes."""
        return max((stage.bytes for stage in self.stages), default=0.0)
