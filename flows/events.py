"""Events by which Prefect's automations learn what happened here: the gate has spoken, people's rankings arrived.

An event is a message, not a record: where no server answers it is lost, and nothing else is.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid4, uuid5

from flows.environment import prefect_answers
from schemas.evaluation import PolicyEvaluation
from schemas.reports import RunSummary
from schemas.settings import Settings

if TYPE_CHECKING:
    from rlhf.feedback.database import Feedback
    from rlhf.feedback.schema import Batch

GATE = "rlhf.gate"
WEAKER = "rlhf.champion.weaker"
HELD = "rlhf.champion.held"
ENOUGH = "rlhf.rankings.enough"
CLOSED = "rlhf.rankings.closed"


def gate_decided(recipe: str, summary: RunSummary) -> None:
    """Tell what became of a run's candidates: `rlhf.gate.promoted`, `.refused` or `.waiting`."""
    promotion = summary.promotion
    _tell(
        f"{GATE}.{promotion.verdict}",
        f"rlhf.recipe.{recipe}",
        {
            "text": f"{recipe}: the gate's verdict is {promotion.verdict}"
            + (f", version {promotion.version}" if promotion.version else ""),
            "verdict": promotion.verdict,
            "version": promotion.version,
            "run_id": summary.run_id,
            "report": summary.report,
            "win_rates": {
                name: found.win_rate
                for name, found in summary.evaluation.items()
                if found.win_rate is not None
            },
        },
    )


def champion_judged(recipe: str, version: int, found: PolicyEvaluation, wanted: float) -> None:
    """Tell whether the champion still beats the SFT policy as the gate wants it."""
    low, high = found.win_rate_low, found.win_rate_high
    weaker = low is not None and low <= wanted
    _tell(
        WEAKER if weaker else HELD,
        f"rlhf.recipe.{recipe}",
        {
            "text": f"{recipe}: champion version {version} wins {found.win_rate} over SFT ({low} to {high}); "
            f"the gate wants more than {wanted}",
            "version": version,
            "win_rate": found.win_rate,
        },
    )


def batches_closed(feedback: "Feedback", closed: Sequence["Batch"]) -> None:
    """Tell of each closed batch, and of each time that RLHF_RETRAIN_AFTER more rankings by people are there.

    The same batch has the same event, however often and by whomever it is told: Prefect counts it once.
    """
    if not closed or not prefect_answers():
        return
    from rlhf.feedback import batches

    every = Settings().retrain_after
    for batch in closed:
        if batch.simulated:
            continue
        total = batches.ranked_by_people(feedback, until=batch)
        payload = {
            "text": f"{batch.name}: {batch.answered} rankings",
            "rankings": batch.answered,
            "total": total,
        }
        _tell(CLOSED, "rlhf.rankings", payload, identity=f"{CLOSED}/{batch.key}")
        if enough(total, batch.answered, every):
            _tell(ENOUGH, "rlhf.rankings", payload, identity=f"{ENOUGH}/{batch.key}")


def enough(total: int, new: int, every: int) -> bool:
    """Tell whether the `new` last of `total` rankings have brought their number past a multiple of `every`."""
    return total // every > (total - new) // every


def _tell(event: str, resource: str, payload: dict[str, object], identity: str | None = None) -> None:
    from prefect.events import emit_event
    from prefect.events.worker import EventsWorker

    emit_event(
        event,
        {"prefect.resource.id": resource, "prefect.resource.name": resource},
        payload=payload,
        id=uuid5(NAMESPACE_URL, identity) if identity else uuid4(),
    )
    # A command ends right after this, and what has not been sent by then never is.
    EventsWorker.instance().wait_until_empty()
