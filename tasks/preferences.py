"""Stage `preferences`: raters rank the candidates; pairs are derived from the rankings."""

import polars as pl

from schemas.config import DataConfig, PreferencesConfig
from schemas.errors import DataRejected
from schemas.refs import DatasetRef
from schemas.reports import PreferencesResult
from tasks.feedback import answers_digest, feedback_store, people_key
from tasks.stage import stage
from tasks.work import StageWork


@stage("preferences", fingerprint=answers_digest)
def collect_preferences(
    work: StageWork,
    candidates: DatasetRef,
    given: DatasetRef | None,
    earlier: PreferencesResult | None,
    data: DataConfig,
    config: PreferencesConfig,
) -> PreferencesResult:
    """Take the rankings that people gave, have simulated raters give them, or take the pairs of the recipe's files.

    What earlier rounds collected is kept: their tables come first in this round's.
    """
    from rlhf.feedback import batches, collected, rankings, raters, weights

    if config.source == "files":
        assert given is not None, "the schema refuses preferences.source=files without files"
        if not config.judging_fraction:
            return PreferencesResult(preferences=given, metrics={"pairs": given.rows})
        return PreferencesResult(
            **_apart(work, work.read(given), config.judging_fraction), metrics={"pairs": given.rows}
        )
    key = _simulate(work, candidates, config) if config.source == "raters" else people_key(candidates)
    batch = batches.find(feedback_store(), key)
    ranked = collected.rankings(feedback_store(), batch.id)
    trusted = raters.reliabilities(collected.standing(feedback_store(), batch.id))
    pairs = rankings.pairs(ranked, trusted, margins=config.margins)
    if not pairs.height:
        raise DataRejected(
            f"Batch {batch.name} has {ranked.height} rankings, from which no pair follows; a reward model needs some. Let people rank, and run again."
        )
    metrics, worth = rankings.describe(ranked, pairs), weights.worth(trusted)
    if earlier:
        assert earlier.rankings is not None, "only files come without rankings, and they have one round"
        ranked = pl.concat([work.read(earlier.rankings), ranked])
        before = (earlier.preferences, earlier.judging)
        pairs = pl.concat([*(work.read(ref) for ref in before if ref), pairs])
        worth = earlier.rater_weights | worth
    return PreferencesResult(
        rankings=work.publish_table(ranked, "rankings"),
        **_apart(work, pairs, config.judging_fraction),
        rater_weights=worth,
        metrics=metrics,
    )


def _apart(work: StageWork, pairs: pl.DataFrame, fraction: float) -> dict[str, DatasetRef]:
    """Publish the pairs; a fraction of the prompts, by clusters of nearly the same ones, is for the judge alone."""
    if not fraction:
        return {"preferences": work.publish_table(pairs, "preferences")}
    from rlhf.data.splits import split_by_prompt

    training, judging = split_by_prompt(pairs, fraction, work.run.seed)
    return {
        "preferences": work.publish_table(training, "preferences"),
        "judging": work.publish_table(judging, "preferences"),
    }


def _simulate(work: StageWork, candidates: DatasetRef, config: PreferencesConfig) -> str:
    """Have the simulated raters rank the candidates, and return the key of their batch."""
    from rlhf.feedback import batches, simulated

    key = f"simulated-{work.folder.name}" + (f"-{work.run.run_id}" if work.run.fresh else "")
    frame, seed = work.read(candidates), work.run.seed
    plan = batches.Plan(
        name=work.run.called(f"{work.run.name}-simulated"),
        simulated=True,
        overlap=config.overlap,
        quota=config.quota,
        gold_every=config.gold_every,
        seed=seed,
    )
    gold = simulated.gold_questions(seed, config.gold_questions, len(frame["responses"][0]), seed)
    batch = batches.publish(feedback_store(), key, frame, plan, gold)
    simulated.answer(feedback_store(), batch, config, world_seed=seed, seed=seed)
    return key
