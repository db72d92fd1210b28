"""No pickle is ever loaded: not beside good weights, not in their place, not from data, checkpoints or MLflow."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ModelNotUsable, RLHFError

# Every name under which some library of this field looks for a pickle.
NAMES = (
    "pytorch_model.bin", "model.bin", "adapter_model.bin", "optimizer.pt", "scheduler.pt", "scaler.pt",
    "rng_state.pth", "training_args.bin", "tokenizer.pkl", "python_model.pkl", "model.pkl", "value_head.bin",
    "model.pt", "model.ckpt", "tf_model.h5", "flax_model.msgpack", "special_tokens.pkl", "config.pkl",
)  # fmt: skip


@pytest.fixture
def mined(bomb: Any, tiny_policy: Path, tmp_path: Path) -> Path:
    """A good model folder with a pickle under every such name."""
    folder = tmp_path / "mined"
    shutil.copytree(tiny_policy, folder)
    for place, name in enumerate(NAMES):
        (bomb.put_torch if place % 2 == 0 else bomb.put)(folder / name)
    return folder


@pytest.fixture
def pickled(bomb: Any, tiny_policy: Path, tmp_path: Path) -> Path:
    """A model folder whose weights are a pickle."""
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_policy, folder)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    bomb.put_torch(folder / "pytorch_model.bin")
    return folder


def as_policy(folder: Path) -> None:
    from rlhf.models.loading import load_policy

    load_policy(folder)


def as_reward_model(folder: Path) -> None:
    from rlhf.models.reward import RewardModel

    RewardModel.load(folder)


def as_start_of_a_reward_model(folder: Path) -> None:
    from rlhf.models.reward import RewardModel

    RewardModel.from_policy(folder, seed=0)


def as_foreign_reward_model(folder: Path) -> None:
    from rlhf.models.foreign_reward import ForeignRewardModel

    ForeignRewardModel.load(folder)


def as_base(folder: Path) -> None:
    from rlhf.models.loading import import_base
    from schemas.config.models import BaseModelConfig

    import_base(BaseModelConfig(source=str(folder)), folder, folder.parent / "imported")


def as_assistant(folder: Path) -> None:
    from rlhf.serving.assistant import Assistant

    Assistant.load(folder)


def as_export(folder: Path) -> None:
    from rlhf.models.export import export_policy

    export_policy(folder, folder.parent / "exported")


READERS = (
    as_policy, as_start_of_a_reward_model, as_foreign_reward_model, as_base, as_assistant, as_export, as_reward_model,
)  # fmt: skip


@pytest.mark.parametrize("read", READERS)
def test_a_pickle_beside_good_weights_is_left_alone(read: Any, mined: Path) -> None:
    if read in (as_reward_model, as_foreign_reward_model):
        with pytest.raises(ModelNotUsable):  # a policy has no score head
            read(mined)
    else:
        read(mined)


@pytest.mark.parametrize("read", READERS[:-1])
def test_a_pickle_in_the_place_of_weights_is_refused(read: Any, pickled: Path) -> None:
    with pytest.raises(ModelNotUsable, match="safetensors"):
        read(pickled)


def test_an_adapter_that_is_a_pickle_is_refused_also_where_transformers_would_add_it(
    bomb: Any, tiny_policy: Path, tmp_path: Path
) -> None:
    from rlhf.models.adapters import load_adapters
    from rlhf.models.loading import load_policy

    model, _ = load_policy(tiny_policy)
    adapter = tmp_path / "adapter"
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"],
        "base_model_name_or_path": str(tiny_policy),
    }  # fmt: skip
    bomb.put_torch(adapter / "adapter_model.bin")
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelNotUsable, match="pickles"):
        load_adapters(model, [adapter])
    with pytest.raises(ModelNotUsable, match="pickles"):
        as_export(adapter)
    # A folder that is a model and an adapter at once: transformers loads both by itself.
    both = tmp_path / "both"
    shutil.copytree(tiny_policy, both)
    for file in adapter.iterdir():
        shutil.copy(file, both)
    with pytest.raises(RLHFError):
        as_policy(both)


def test_code_beside_a_model_is_never_run(bomb: Any, tiny_policy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with-code"
    shutil.copytree(tiny_policy, folder)
    code = f"import pathlib\npathlib.Path({str(bomb.mark)!r}).touch()\nclass Evil:\n    pass\n"
    (folder / "modeling_evil.py").write_text(code, encoding="utf-8")
    (folder / "tokenization_evil.py").write_text(code, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "modeling_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    told = json.loads((folder / "tokenizer_config.json").read_text())
    told |= {
        "tokenizer_class": "Evil",
        "auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")
    for read in (as_policy, as_base):
        with pytest.raises(ModelNotUsable):
            read(folder)


def test_a_checkpoint_is_read_by_name(bomb: Any, tmp_path: Path) -> None:
    import polars as pl
    import torch

    from rlhf.training.checkpoint import Progress, load_checkpoint, save_checkpoint
    from rlhf.training.trained import Trained

    def trained() -> Trained:
        return Trained.by_adamw(torch.nn.Linear(2, 2), learning_rate=1e-3)

    folder = tmp_path / "checkpoints"
    rollouts = pl.DataFrame({"iteration": [0]})
    save_checkpoint(
        folder, progress=Progress(kl_coef=0.1, rollouts=rollouts), trained={"policy": trained()}, settings="s"
    )
    (newest,) = folder.iterdir()
    for name in (*NAMES, "policy.bin", "policy.pt", "state.pkl", "rollouts.pkl"):
        bomb.put(newest / name)
    found = load_checkpoint(folder, trained={"policy": trained()}, settings="s")
    assert found is not None
    assert found.kl_coef == 0.1
    (newest / "policy.safetensors").unlink()
    bomb.put_torch(newest / "policy.safetensors")
    with pytest.raises(Exception, match=r"(?i)header|safetensor"):
        load_checkpoint(folder, trained={"policy": trained()}, settings="s")


@pytest.mark.parametrize(
    "name",
    [
        "rows.pkl",
        "rows.pickle",
        "rows.jsonl",
        "rows.json",
        "rows.csv",
        "rows.parquet",
        "rows.npy",
        "rows.pt",
        "rows.arrow",
        "rows.txt",
    ],
)
def test_a_data_file_that_is_a_pickle_is_rejected(bomb: Any, tmp_path: Path, name: str) -> None:
    from rlhf.data.validation import validate_file
    from schemas.config.data import DataChecks

    for put in (bomb.put, bomb.put_torch):
        path = put(tmp_path / "data" / name)
        report = validate_file(str(path), kind="preferences", out=tmp_path / "out", config=DataChecks())
        assert report.verdict == "reject_file"
        assert report.kept == 0


def test_a_registered_version_is_files_and_mlflow_unpickles_none_of_them(
    bomb: Any, mined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhf.adapters.flavor import describe_flavor
    from rlhf.adapters.object_store import open_store
    from rlhf.adapters.tracking import connect
    from schemas.settings import Settings

    monkeypatch.setenv("RLHF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = Settings()
    describe_flavor(mined)
    tracking = connect(settings, "mined")
    with tracking.start_run("run", parent=None, tags={}) as run:
        run.log_folder(mined, "model")
    registry = tracking.registry("mined", open_store(settings.store, settings.cache))
    registry.register(run_id=run.run_id, artifact_folder="model", tags={}, description="")
    version = registry.resolve("1")
    copy = registry.download(version, tmp_path / "copy")
    with registry.files(version) as folder:
        as_policy(folder)
    as_policy(copy)
    as_assistant(copy)
