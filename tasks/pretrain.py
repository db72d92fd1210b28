"""Stage `pretrain`: a tiny base model from raw text, for recipes that name no existing base."""

from pathlib import Path

from schemas.config import BaseModelConfig, PretrainConfig
from schemas.refs import DatasetRef
from schemas.reports import PolicyResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("pretrain")
def pretrain_base(work: StageWork, corpus: DatasetRef | None, config: PretrainConfig) -> PolicyResult:
    """Train a tokenizer and a language model on the corpus."""
    from rlhf.training import pretrain

    assert corpus is not None, "a recipe without a base has a corpus: RunConfig requires one of the two"
    texts = work.read(corpus)["text"].to_list()
    out = work.folder / "model"
    metrics = pretrain.fit(
        texts, config, seed=work.run.seed, precision=work.precision, on_step=work.on_step, out=out
    )
    return PolicyResult(model=work.publish_model(out, "policy"), metrics=metrics)


@stage("pretrain", reuse=False)
def import_base(work: StageWork, config: BaseModelConfig) -> PolicyResult:
    """Bring an existing base model into the store; its digest decides what depends on it."""
    from rlhf.adapters.bucket import download
    from rlhf.models import loading

    def local(source: str) -> Path | None:
        if source.startswith("s3://"):
            return download(source, work.folder / "download")
        return Path(source) if Path(source).is_dir() else None  # a hub id

    out = work.folder / "model"
    loading.import_base(
        config,
        local(config.source),
        out,
        tokenizer_folder=local(config.tokenizer) if config.tokenizer else None,
    )
    return PolicyResult(model=work.publish_model(out, "policy"))
