"""The feedback database of the environment, and the batch that a run's candidates become."""

import hashlib
import json
from functools import cache

from rlhf.feedback.database import Feedback, connect
from rlhf.feedback.schema import Batch
from schemas.config import DataConfig, PreferencesConfig
from schemas.errors import DataRejected
from schemas.refs import DatasetRef
from schemas.settings import Settings
from tasks.work import artifact_store


def feedback_store() -> Feedback:
    """Return the feedback database that the environment names."""
    return _connect(Settings().feedback_url)


@cache
def _connect(url: str) -> Feedback:
    return connect(url)


def people_key(candidates: DatasetRef) -> str:
    """Return the key of the batch in which people rank these candidates."""
    return f"people-{candidates.digest.removeprefix('sha256:')[:32]}"


def publish_for_people(
    name: str,
    candidates: DatasetRef,
    data: DataConfig,
    config: PreferencesConfig,
    *,
    seed: int,
    flow_run_id: str | None,
) -> Batch:
    """Publish the candidates for people to rank, or find the batch in which they do."""
    import polars as pl

    from rlhf.feedback.batches import Plan, publish
    from rlhf.feedback.simulated import gold_questions

    frame = pl.read_parquet(artifact_store().fetch(candidates))
    gold = None
    if data.source == "helpdesk":
        gold = gold_questions(seed, config.gold_questions, len(frame["responses"][0]), seed)
    plan = Plan(
        name=f"{name}-{candidates.digest.removeprefix('sha256:')[:6]}",
        guidelines=config.guidelines,
        overlap=config.overlap,
        quota=config.quota,
        gold_every=config.gold_every,
        seed=seed,
        flow_run_id=flow_run_id,
    )
    return publish(feedback_store(), people_key(candidates), frame, plan, gold)


def answers_digest(candidates: DatasetRef, config: PreferencesConfig, **_: object) -> str:
    """Return what tells one state of people's answers from another; the same for all other sources."""
    if config.source != "people":
        return ""
    from rlhf.feedback import batches, collected

    batch = batches.by_key(feedback_store(), people_key(candidates))
    if batch is None:
        raise DataRejected("Nobody has been asked yet to rank these candidates; run the whole pipeline.")
    standing = [answer._asdict() for answer in collected.standing(feedback_store(), batch.id)]
    return hashlib.sha256(json.dumps(standing).encode()).hexdigest()
