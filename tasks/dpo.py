"""Stage `dpo`: learn from the pairs directly, tethered to the SFT policy."""

from schemas.config import DPOConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("dpo")
def train_dpo(
    work: StageWork,
    sft: ModelRef,
    preferences: DatasetRef,
    reference: DatasetRef | None,
    config: DPOConfig,
) -> PolicyResult:
    """Fit the policy to the preferences by DPO."""
    from rlhf.training import dpo

    out = work.folder / "model"
    metrics = dpo.fit(
        work.fetch(sft),
        work.read(preferences),
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
        out=out,
        reference=work.read(reference) if reference and not config.load_in_4bit else None,
    )
    return PolicyResult(model=work.publish_model(out, "policy"), metrics=metrics)
