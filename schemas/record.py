"""What every record is, and the estimate that most of them hold."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen record, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Interval(Record):
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float
