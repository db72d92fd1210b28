"""What a stage has to know of the pipeline run that it belongs to."""

from schemas.config.run import ComputeConfig
from schemas.record import Record


class PipelineRun(Record):
    """One execution of the flow; handed to every stage."""

    run_id: str
    """The parent run in MLflow."""
    name: str
    """The recipe's name."""
    seed: int
    compute: ComputeConfig
    fresh: bool = False
    """Compute every stage again, whatever the store holds."""
    until: str | None = None
    """Stop after the stage of this name."""
