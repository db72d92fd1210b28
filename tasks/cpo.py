"""Stage `cpo`: learn from the pairs by contrast and likelihood, without a reference."""

from schemas.config import CPOConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("cpo")
def train_cpo(work: StageWork, sft: ModelRef, preferences: DatasetRef, config: CPOConfig) -> PolicyResult:
    """Fit the policy to the preferences by CPO."""
    from rlhf.training import cpo

    out = work.folder / "model"
    metrics = cpo.fit(
        work.fetch(sft),
        work.read(preferences),
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
        out=out,
    )
    return PolicyResult(model=work.publish_model(out, "policy"), metrics=metrics)
