import importlib.util

import peft
import pytest
import torch

from rlhf.models.loading import attach_lora, load_policy, merge
from schemas.config import LoraConfig
from schemas.errors import ConfigError

LORA = LoraConfig(rank=2, alpha=6.0)
IDS = torch.tensor([[9, 8, 7, 6, 30, 31]])


def test_four_bits_on_a_cpu_are_refused(tiny_policy):
    with pytest.raises(
        ConfigError, match="needs a GPU, and this machine computes on its CPU; set load_in_4bit=false"
    ):
        load_policy(tiny_policy, device="cpu", four_bit=True)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_without_bitsandbytes_the_error_says_how_to_install_it(tiny_policy):
    with pytest.raises(ConfigError, match="pip install 'rlhf\\[four-bit\\]'"):
        load_policy(tiny_policy, device="cuda", four_bit=True)


def test_adapters_are_merged_into_the_weights_of_full_precision(tiny_policy):
    rounded, _ = load_policy(tiny_policy)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.copy_((weight * 8).round() / 8)  # as coarse as 4 bits
    adapted = attach_lora(rounded, LORA, "CAUSAL_LM")
    generator = torch.Generator().manual_seed(0)
    adapters = {
        name: torch.randn(tensor.shape, generator=generator) / 10
        for name, tensor in peft.get_peft_model_state_dict(adapted).items()
    }
    peft.set_peft_model_state_dict(adapted, adapters)
    merged = merge(adapted, onto=tiny_policy)
    begun = dict(load_policy(tiny_policy)[0].named_parameters())
    changed = 0
    for name, weight in merged.named_parameters():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        expected = begun[name]
        if f"{stem}.lora_A.weight" in adapters:
            update = adapters[f"{stem}.lora_B.weight"] @ adapters[f"{stem}.lora_A.weight"]
            expected = expected + 6.0 / 2 * update
            changed += 1
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-6)
    assert changed == 14  # seven linear layers in each of two blocks
    assert not isinstance(merged, peft.PeftModel)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_linear_layers_are_in_four_bits_on_a_gpu(tiny_policy):
    pytest.importorskip("bitsandbytes")
    model, _ = load_policy(tiny_policy, device="cuda", four_bit=True)
    kinds = {type(module).__name__ for module in model.modules()}
    assert "Linear4bit" in kinds
    assert torch.isfinite(model(IDS.cuda()).logits).all()
