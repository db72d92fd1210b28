"""Stage `orpo`: learn from the pairs by likelihood and odds, without a reference."""

from schemas.config import ORPOConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("orpo")
def train_orpo(work: StageWork, sft: ModelRef, preferences: DatasetRef, config: ORPOConfig) -> PolicyResult:
    """Fit the policy to the preferences by ORPO."""
    from rlhf.training import orpo

    out = work.folder / "model"
    metrics = orpo.fit(
        work.fetch(sft),
        work.read(preferences),
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
        out=out,
    )
    return PolicyResult(model=work.publish_model(out, "policy"), metrics=metrics)
