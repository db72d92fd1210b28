"""Stage `reference`: what the SFT policy says of the pairs, once for all aligners and settings that compare with it."""

from schemas.config.aligners.dpo import PairUse
from schemas.pipeline import PipelineRun
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import ReferenceResult
from tasks.stage import stage
from tasks.work import StageWork


def score_reference(
    run: PipelineRun, sft: ModelRef, preferences: DatasetRef, uses: tuple[PairUse, ...]
) -> DatasetRef | None:
    """Score the pairs that aligners learn from, as they cut them; None when no aligner compares with the reference."""
    return score_pairs(run, sft, preferences, uses).logprobs if uses else None


@stage("reference")
def score_pairs(
    work: StageWork, sft: ModelRef, preferences: DatasetRef, uses: tuple[PairUse, ...]
) -> ReferenceResult:
    """Compute the reference log-probabilities of the pairs that are used."""
    from rlhf.training import reference

    frame = reference.score_pairs(
        work.fetch(sft),
        work.read(preferences),
        uses,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
    )
    return ReferenceResult(
        logprobs=work.publish_table(frame, "reference"), metrics={"pairs": float(frame.height)}
    )
