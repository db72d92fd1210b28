"""`rlhf label publish` and `collect`: a batch as a review queue of MLflow's own page, and the verdicts back."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal import say, show
from schemas.errors import ConfigError
from schemas.settings import Settings

if TYPE_CHECKING:
    from rlhf.adapters.reviews import Reviews

BatchName = Annotated[str, typer.Argument(metavar="BATCH", help="The batch's name or number.")]
Experiment = Annotated[str, typer.Option(help="MLflow experiment of the review queues.")]


def publish(
    batch: BatchName,
    reviewer: Annotated[
        list[str] | None, typer.Option(help="Who may answer, as MLflow knows them; default: everybody.")
    ] = None,
    experiment: Experiment = "labelling",
) -> None:
    """Put a batch into MLflow's review queues, as pairs of responses."""
    from rlhf.feedback import batches, reviews
    from rlhf.feedback.database import connect

    settings = Settings()
    feedback = connect(settings.feedback_url)
    found = batches.find(feedback, batch)
    if found.closed_at is not None:
        raise ConfigError(f"Batch {found.name} is closed, so nobody can answer it; publish an open one.")
    pairs = reviews.pairs(feedback, found)
    new = _reviews(settings, experiment).publish(
        found.name, found.key, pairs, reviewer or [], found.guidelines
    )
    show(f"{len(pairs)} pairs of {found.name} are in MLflow's review queue of that name, {new} of them new")
    say(
        f"open experiment {experiment} in MLflow (rlhf ui), answer, and then: rlhf label collect {found.name}"
    )


def collect(batch: BatchName, experiment: Experiment = "labelling") -> None:
    """Take the verdicts of a batch's review queue as rankings; the run that waits goes on if they are enough."""
    from rlhf.feedback import batches, reviews
    from rlhf.feedback.database import connect

    settings = Settings()
    feedback = connect(settings.feedback_url)
    found = batches.find(feedback, batch)
    verdicts = _reviews(settings, experiment).verdicts(found.name, found.key)
    kept, late = reviews.take(feedback, found, verdicts)
    found = batches.find(feedback, found.key)
    show(f"{kept} new rankings from {len(verdicts)} verdicts: {found.answered} of {found.quota}")
    if late:
        say(f"{late} verdicts came after the batch was closed, and were not kept")
    if found.closed_at is not None:
        from flows.resume import resume_waiting

        for message in resume_waiting(feedback):
            say(message)


def _reviews(settings: Settings, experiment: str) -> "Reviews":
    from rlhf.adapters.reviews import Reviews

    return Reviews(settings, experiment)
