"""Stage `simpo`: learn from the pairs by log-probabilities per token, without a reference."""

from schemas.config import SimPOConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("simpo")
def train_simpo(work: StageWork, sft: ModelRef, preferences: DatasetRef, config: SimPOConfig) -> PolicyResult:
    """Fit the policy to the preferences by SimPO."""
    from rlhf.training import simpo

    out = work.folder / "model"
    metrics = simpo.fit(
        work.fetch(sft),
        work.read(preferences),
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
        out=out,
    )
    return PolicyResult(model=work.publish_model(out, "policy"), metrics=metrics)
