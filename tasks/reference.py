"""Stage `reference`: what the SFT policy says of the pairs, once for all aligners and settings that compare with it."""

from schemas.pipeline import PipelineRun
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import ReferenceResult
from tasks.stage import stage
from tasks.work import StageWork


def score_reference(
    run: PipelineRun, sft: ModelRef, preferences: DatasetRef, max_lengths: tuple[int, ...]
) -> DatasetRef | None:
    """Score the pairs at each length that an aligner cuts them to; None when no aligner compares with the reference."""
    return score_pairs(run, sft, preferences, max_lengths).logprobs if max_lengths else None


@stage("reference")
def score_pairs(
    work: StageWork, sft: ModelRef, preferences: DatasetRef, max_lengths: tuple[int, ...]
) -> ReferenceResult:
    """Compute the reference log-probabilities of all pairs."""
    from rlhf.training import reference

    frame = reference.score_pairs(
        work.fetch(sft),
        work.read(preferences),
        max_lengths,
        precision=work.precision,
        on_step=work.on_step,
    )
    return ReferenceResult(
        logprobs=work.publish_table(frame, "reference"), metrics={"pairs": float(frame.height)}
    )
