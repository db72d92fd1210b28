"""Stage `preferences`: raters rank the candidates; pairs are derived from the rankings."""

from schemas.config import DataConfig, PreferencesConfig
from schemas.refs import DatasetRef
from schemas.reports import PreferencesResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("preferences")
def collect_preferences(
    work: StageWork,
    candidates: DatasetRef,
    given: DatasetRef | None,
    data: DataConfig,
    config: PreferencesConfig,
) -> PreferencesResult:
    """Collect rankings of the candidates from the simulated raters, or take the pairs that the recipe's files give."""
    from rlhf.feedback import rankings, simulated

    if config.source == "files":
        assert given is not None, "the schema refuses preferences.source=files without files"
        return PreferencesResult(preferences=given, metrics={"pairs": given.rows})
    ranked = simulated.rank(work.read(candidates), config, world_seed=work.run.seed, seed=work.run.seed)
    pairs = rankings.pairs(ranked)
    return PreferencesResult(
        rankings=work.publish_table(ranked, "rankings"),
        preferences=work.publish_table(pairs, "preferences"),
        metrics=rankings.describe(ranked, pairs),
    )
