"""A base model and its tokenizer come from folders or the hub; here the hub is what its cache already holds."""

import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from pydantic import ValidationError
from transformers import AutoTokenizer

from rlhf.models.loading import import_base, load_policy
from schemas.config.models import BaseModelConfig
from schemas.errors import ModelNotUsable, NotFound, StoreUnreachable

IDS = torch.arange(6, 18).reshape(2, 6)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = ("model.safetensors", "config.json", "generation_config.json")


@pytest.fixture
def parts(tiny_policy: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The weights in one folder, and in another the tokenizer, whose template greets."""
    model, tokenizer = tmp_path / "model", tmp_path / "tokenizer"
    shutil.copytree(tiny_policy, tokenizer, ignore=shutil.ignore_patterns(*WEIGHTS))
    model.mkdir()
    for name in WEIGHTS:
        shutil.copy(tiny_policy / name, model)
    chat = AutoTokenizer.from_pretrained(tokenizer)
    chat.chat_template = "Hello! " + chat.chat_template
    chat.save_pretrained(tokenizer)
    return model, tokenizer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a hub that cannot be reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def _cache(hub: Path, name: str, folder: Path) -> None:
    """Put a folder where a download of the branch `main` would have put it."""
    repository = hub / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


def _check(out: Path, tiny_policy: Path) -> None:
    model, tokenizer = load_policy(out)
    torch.testing.assert_close(model(IDS).logits, load_policy(tiny_policy)[0](IDS).logits, rtol=0, atol=0)
    assert tokenizer.chat_template.startswith("Hello! ")


def test_a_tokenizer_of_another_folder_is_saved_with_the_model(parts, tiny_policy, tmp_path):
    model, tokenizer = parts
    config = BaseModelConfig(source=str(model), tokenizer=str(tokenizer))
    import_base(config, model, tmp_path / "out", tokenizer_folder=tokenizer)
    _check(tmp_path / "out", tiny_policy)


def test_it_takes_the_place_of_the_models_own(parts, tiny_policy, tmp_path):
    config = BaseModelConfig(source=str(tiny_policy), tokenizer=str(parts[1]))
    import_base(config, tiny_policy, tmp_path / "out", tokenizer_folder=parts[1])
    _check(tmp_path / "out", tiny_policy)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(parts, tmp_path):
    model, tokenizer = parts
    larger = AutoTokenizer.from_pretrained(tokenizer)
    larger.add_tokens(["<|new|>"])
    larger.save_pretrained(tokenizer)
    config = BaseModelConfig(source=str(model), tokenizer=str(tokenizer))
    with pytest.raises(ModelNotUsable, match="321 tokens and the model 320 embeddings"):
        import_base(config, model, tmp_path / "out", tokenizer_folder=tokenizer)


def test_what_is_wrong_with_the_tokenizer_is_said_of_the_place_it_came_from(parts, tmp_path):
    model, tokenizer = parts
    (tokenizer / "chat_template.jinja").unlink()
    config = BaseModelConfig(source=str(model), tokenizer="the tokenizer")
    with pytest.raises(ModelNotUsable, match=r"the tokenizer: the tokenizer has no chat template"):
        import_base(config, model, tmp_path / "out", tokenizer_folder=tokenizer)
    unknown = config.model_copy(update={"pad_token": "<|nowhere|>"})
    with pytest.raises(ModelNotUsable, match="not in the vocabulary of the tokenizer"):
        import_base(unknown, model, tmp_path / "out", tokenizer_folder=tokenizer)


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_model_and_tokenizer_come_from_the_hub_at_their_revisions(
    hub, parts, tiny_policy, tmp_path, revision
):
    _cache(hub, "someone/model", parts[0])
    _cache(hub, "someone-else/tokenizer", parts[1])
    config = BaseModelConfig(
        source="someone/model",
        revision=revision,
        tokenizer="someone-else/tokenizer",
        tokenizer_revision=revision,
    )
    import_base(config, None, tmp_path / "out")
    _check(tmp_path / "out", tiny_policy)


def test_a_tokenizer_of_the_hub_needs_a_revision_of_its_own(hub, parts, tmp_path):
    config = BaseModelConfig(source="someone/model", revision="main", tokenizer="someone/tokenizer")
    with pytest.raises(
        ModelNotUsable, match=r"someone/tokenizer is a hub id without base\.tokenizer_revision"
    ):
        import_base(config, parts[0], tmp_path / "out")


def test_a_revision_of_no_tokenizer_is_an_error_of_the_recipe():
    with pytest.raises(ValidationError, match="tokenizer_revision is set and tokenizer is not"):
        BaseModelConfig(source="someone/model", revision="main", tokenizer_revision="main")


def test_a_hub_that_is_switched_off_and_holds_nothing_is_one_clear_error(hub, tmp_path):
    config = BaseModelConfig(source="someone/model", revision="main")
    with pytest.raises(StoreUnreachable, match="did not give someone/model"):
        import_base(config, None, tmp_path / "out")


def test_a_hub_that_does_not_answer_is_one_clear_error(hub, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    config = BaseModelConfig(source=str(parts[0]), tokenizer="someone/tokenizer", tokenizer_revision="main")
    with pytest.raises(StoreUnreachable, match="did not give someone/tokenizer"):
        import_base(config, parts[0], tmp_path / "out")


def test_a_name_that_is_neither_a_folder_nor_a_hub_id_is_not_found(hub, tmp_path):
    config = BaseModelConfig(source="/no/such/folder", revision="main")
    with pytest.raises(NotFound, match="/no/such/folder"):
        import_base(config, None, tmp_path / "out")
