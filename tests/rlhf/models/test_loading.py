import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.models.loading import attach_lora, import_base, load_policy, merge, save_model
from schemas.config.models import BaseModelConfig, LoraConfig
from schemas.errors import ModelNotUsable

IDS = torch.arange(6, 18).reshape(2, 6)


@pytest.fixture
def folder(tiny_policy, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(tiny_policy, tmp_path / "policy")


def _edit_tokenizer(folder, **changes):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    shutil.rmtree(folder / "chat_template.jinja", ignore_errors=True)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)


def test_a_saved_policy_gives_the_same_logits_when_loaded(tiny_policy, tmp_path):
    model, tokenizer = load_policy(tiny_policy)
    save_model(model, tokenizer, tmp_path / "copy")
    again, _ = load_policy(tmp_path / "copy")
    torch.testing.assert_close(again(IDS).logits, model(IDS).logits, rtol=0, atol=0)
    assert not again.training
    assert again.dtype == torch.float32
    assert not list((tmp_path / "copy").glob("*.bin"))


def test_another_program_can_load_what_we_save(tiny_policy):
    model, _ = load_policy(tiny_policy)
    plain = AutoModelForCausalLM.from_pretrained(tiny_policy)
    torch.testing.assert_close(plain(IDS).logits, model(IDS).logits, rtol=0, atol=1e-5)


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelNotUsable, match="safetensors"):
        load_policy(folder)


def test_a_tokenizer_without_chat_template_is_refused_with_the_key_that_helps(folder):
    _edit_tokenizer(folder, chat_template=None)
    with pytest.raises(ModelNotUsable, match=r"base\.chat_template"):
        load_policy(folder)


@pytest.mark.parametrize(("pad", "found"), [(None, "no pad token"), ("<|end|>", "EOS")])
def test_a_pad_token_that_is_missing_or_eos_is_refused(folder, pad, found):
    _edit_tokenizer(folder, pad_token=pad)
    with pytest.raises(ModelNotUsable, match=found):
        load_policy(folder)


def test_a_tokenizer_larger_than_the_model_is_refused(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelNotUsable, match="321 tokens"):
        load_policy(folder)


def test_code_that_comes_with_a_model_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "auto_map": {"AutoModelForCausalLM": "own.Own", "AutoConfig": "own.Config"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('this code ran')")
    with pytest.raises(ModelNotUsable):
        load_policy(folder)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelNotUsable):
        load_policy(tmp_path)


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"])
def test_a_checkpoint_that_lacks_weights_is_refused(folder, name):
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelNotUsable, match=f"lacks .* of the weights .*{name}"):
        load_policy(folder)


def test_adapters_that_were_saved_unmerged_are_refused(folder):
    adapted = attach_lora(load_policy(folder)[0], LoraConfig(rank=2), "CAUSAL_LM")
    names = {key.removeprefix("base_model.model."): weight for key, weight in adapted.state_dict().items()}
    names.pop("lm_head.weight", None)  # tied to the embeddings
    save_file({key: weight.contiguous() for key, weight in names.items()}, folder / "model.safetensors")
    with pytest.raises(ModelNotUsable, match="lacks 14 of the weights"):
        load_policy(folder)


def test_weights_of_another_shape_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(ModelNotUsable, match="cannot be loaded"):
        load_policy(folder)


def test_weights_that_are_cut_short_are_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelNotUsable, match="cannot be loaded"):
        load_policy(folder)


def test_an_imported_base_gets_the_template_and_pad_token_of_the_recipe(folder, tmp_path):
    _edit_tokenizer(folder, chat_template=None, pad_token=None)
    config = BaseModelConfig(source=str(folder), chat_template="chatml", pad_token="<|pad|>")
    import_base(config, folder, tmp_path / "out")
    model, tokenizer = load_policy(tmp_path / "out")
    assert "<|im_start|>" in tokenizer.chat_template
    assert tokenizer.pad_token == "<|pad|>"
    assert model.config.pad_token_id == tokenizer.pad_token_id


def test_an_unknown_pad_token_is_refused(folder, tmp_path):
    with pytest.raises(ModelNotUsable, match="not in the vocabulary"):
        import_base(BaseModelConfig(source="here", pad_token="<|nowhere|>"), folder, tmp_path / "out")


def test_a_hub_id_needs_a_revision(tmp_path):
    with pytest.raises(ModelNotUsable, match=r"base\.revision"):
        import_base(BaseModelConfig(source="someone/model"), None, tmp_path / "out")


def test_merged_adapters_give_the_adapted_logits_and_fresh_ones_change_nothing(tiny_policy):
    model, _ = load_policy(tiny_policy)
    before = model(IDS).logits
    adapted = attach_lora(model, LoraConfig(rank=2), "CAUSAL_LM").eval()
    assert isinstance(adapted, PeftModel)
    torch.testing.assert_close(adapted(IDS).logits, before, rtol=0, atol=0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    changed = adapted(IDS).logits
    assert (changed - before).abs().max() > 1e-2
    merged = merge(adapted)
    assert not isinstance(merged, PeftModel)
    torch.testing.assert_close(merged(IDS).logits, changed, rtol=1e-4, atol=1e-4)


def test_only_adapters_are_trained(tiny_policy):
    adapted = attach_lora(load_policy(tiny_policy)[0], LoraConfig(rank=2), "CAUSAL_LM")
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
