"""Stage `rejection_sampling`: learn from the best of one's own responses."""

from schemas.config import RejectionSamplingConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("rejection_sampling")
def train_rejection_sampling(
    work: StageWork,
    sft: ModelRef,
    reward: ModelRef,
    prompts: DatasetRef,
    config: RejectionSamplingConfig,
) -> PolicyResult:
    """Draw, choose by the reward model, and fine-tune on the chosen; what was drawn is published too."""
    from rlhf.training import rejection_sampling

    out = work.folder / "model"
    fitted = rejection_sampling.fit(
        work.fetch(sft),
        work.fetch(reward),
        work.read(prompts),
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
        out=out,
    )
    return PolicyResult(
        model=work.publish_model(out, "policy"),
        rollouts=work.publish_table(fitted.rollouts, "rollouts"),
        metrics=fitted.metrics,
    )
