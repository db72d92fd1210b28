"""Stage `sample`: several responses of the SFT policy to each prompt."""

from schemas.config import SampleConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import CandidatesResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("sample")
def sample_candidates(
    work: StageWork, policy: ModelRef, prompts: DatasetRef, config: SampleConfig
) -> CandidatesResult:
    """Sample the responses that raters will rank."""
    from rlhf.feedback import candidates

    frame = candidates.sample(
        work.fetch(policy),
        work.read(prompts).head(config.num_prompts),
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
    )
    return CandidatesResult(
        candidates=work.publish_table(frame, "candidates"), metrics=candidates.describe(frame)
    )
