"""Stage `sft`: the base model learns from demonstrations."""

from schemas.config import SFTConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("sft")
def train_sft(work: StageWork, base: ModelRef, demonstrations: DatasetRef, config: SFTConfig) -> PolicyResult:
    """Fine-tune the base on demonstrations; the result is the reference policy of every aligner."""
    from rlhf.data.tokens import check_demonstrations
    from rlhf.models.loading import load_tokenizer
    from rlhf.training import sft

    out, table = work.folder / "model", work.read(demonstrations)
    tokens = check_demonstrations(load_tokenizer(work.fetch(base)), table, max_length=config.max_length)
    metrics = sft.fit(
        work.fetch(base),
        table,
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
        out=out,
    )
    return PolicyResult(model=work.publish_model(out, "policy"), tokens=tokens, metrics=metrics)
