"""Stage `kto`: learn from single responses, good or bad, tethered to the SFT policy."""

from schemas.config import KTOConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("kto")
def train_kto(
    work: StageWork, sft: ModelRef, preferences: DatasetRef, feedback: DatasetRef | None, config: KTOConfig
) -> PolicyResult:
    """Fit the policy to what was said of single responses by KTO; pairs say it of both of theirs."""
    from rlhf.training import kto

    out = work.folder / "model"
    metrics = kto.fit(
        work.fetch(sft),
        work.read(preferences),
        None if feedback is None else work.read(feedback),
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
        out=out,
    )
    return PolicyResult(model=work.publish_model(out, "policy"), metrics=metrics)
