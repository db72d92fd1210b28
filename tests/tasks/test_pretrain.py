"""A base model that exists already: from where it lies to the store."""

import time
from pathlib import Path

import pytest

from schemas.config import BaseModelConfig, ComputeConfig
from schemas.errors import NotFound
from schemas.pipeline import PipelineRun
from tasks.pretrain import import_base
from tasks.work import StageWork, artifact_store

pytestmark = pytest.mark.integration


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageWork:
    for name in ("RLHF_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RLHF_HOME", str(tmp_path / "home"))
    run = PipelineRun(run_id="0" * 32, name="mine", seed=0, compute=ComputeConfig())
    work = StageWork(run=run, stage="pretrain", key="key", started=time.monotonic())
    work.track({}, {})
    return work


def _upload(bucket: str, prefix: str, files: list[Path]) -> str:
    import boto3

    for file in files:
        boto3.client("s3").upload_file(str(file), bucket, f"{prefix}/{file.name}")
    return f"s3://{bucket}/{prefix}"


def test_a_model_and_a_tokenizer_from_two_prefixes_of_a_bucket_become_a_policy_of_the_store(
    bucket: str, tiny_policy: Path, work: StageWork
):
    import torch

    from rlhf.models.loading import load_policy

    files = sorted(tiny_policy.iterdir())
    with_weights = [file for file in files if "tokenizer" not in file.name and file.suffix != ".jinja"]
    config = BaseModelConfig(
        source=_upload(bucket, "models/tiny", with_weights),
        tokenizer=_upload(bucket, "tokenizers/tiny", [file for file in files if file not in with_weights]),
    )
    result = import_base.body(work, config)
    assert result.model.role == "policy"
    model, tokenizer = load_policy(artifact_store().fetch(result.model))
    original, own = load_policy(tiny_policy)
    ids = torch.arange(6, 18).reshape(2, 6)
    torch.testing.assert_close(model(ids).logits, original(ids).logits, rtol=0, atol=0)
    assert tokenizer.get_vocab() == own.get_vocab()

    whole = import_base.body(work, BaseModelConfig(source=_upload(bucket, "models/whole", files)))
    assert whole.model.digest == result.model.digest


def test_a_prefix_that_holds_nothing_is_not_found(bucket: str, work: StageWork):
    with pytest.raises(NotFound, match="nowhere"):
        import_base.body(work, BaseModelConfig(source=f"s3://{bucket}/nowhere"))
