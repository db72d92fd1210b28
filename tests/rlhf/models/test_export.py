import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.models.export import export_policy
from rlhf.models.loading import attach_lora, load_policy
from schemas.config.models import LoraConfig
from schemas.errors import ModelNotUsable

IDS = torch.arange(6, 18).reshape(2, 6)


@pytest.fixture
def adapters(tiny_policy: Path, tmp_path: Path) -> Path:
    """Adapters that change something, in a folder without their base."""
    torch.manual_seed(1)
    adapted = attach_lora(load_policy(tiny_policy)[0], LoraConfig(rank=2), "CAUSAL_LM")
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    adapted.save_pretrained(tmp_path / "adapters")
    return tmp_path / "adapters"


def test_adapters_are_merged_into_their_base(adapters: Path, tiny_policy: Path, tmp_path: Path) -> None:
    wanted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_policy), str(adapters))
    before = AutoModelForCausalLM.from_pretrained(tiny_policy)(IDS).logits
    export_policy(adapters, tmp_path / "out", base=tiny_policy)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found(IDS).logits, wanted(IDS).logits, rtol=0, atol=1e-4)
    assert (found(IDS).logits - before).abs().max() > 0.1
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


def test_the_base_that_adapters_name_is_found(adapters: Path, tiny_policy: Path, tmp_path: Path) -> None:
    config = adapters / "adapter_config.json"
    named = {**json.loads(config.read_text()), "base_model_name_or_path": str(tiny_policy)}
    config.write_text(json.dumps(named))
    export_policy(adapters, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").is_file()


def test_adapters_without_their_base_or_as_pickles_are_refused(
    adapters: Path, tiny_policy: Path, tmp_path: Path
):
    config = adapters / "adapter_config.json"
    named = {**json.loads(config.read_text()), "base_model_name_or_path": "some/hub-model"}
    config.write_text(json.dumps(named))
    with pytest.raises(ModelNotUsable, match="some/hub-model, which is no folder here"):
        export_policy(adapters, tmp_path / "out")
    (adapters / "adapter_model.safetensors").rename(adapters / "adapter_model.bin")
    with pytest.raises(ModelNotUsable, match=r"has no adapter_model\.safetensors"):
        export_policy(adapters, tmp_path / "out", base=tiny_policy)


def test_a_plain_model_is_copied_file_by_file(tiny_policy: Path, tmp_path: Path) -> None:
    export_policy(tiny_policy, tmp_path / "out")
    files = {path.name: path.read_bytes() for path in tiny_policy.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files


def test_what_cannot_be_loaded_is_not_handed_out(tiny_policy: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_policy, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelNotUsable, match="cannot be loaded"):
        export_policy(broken, tmp_path / "out")
