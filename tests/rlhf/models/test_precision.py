import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from rlhf.models.precision import Precision, apply, attention_implementation, autocast, choose
from schemas.config.run import ComputeConfig
from schemas.errors import ConfigError


@pytest.fixture(autouse=True)
def _threads_are_restored():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _model(attention: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=24,
            attn_implementation=attention,
        )
    ).eval()


def test_what_the_recipe_names_is_obeyed_without_measuring():
    precision = choose(ComputeConfig(device="cpu", threads=1, precision="fp32"))
    assert precision == Precision(threads=1, dtype="fp32", device="cpu")
    assert torch.get_num_threads() == 1


def test_auto_chooses_one_thread_or_all_of_them():
    torch.set_num_threads(2)
    precision = choose(ComputeConfig(device="cpu"))
    assert precision.threads in {1, 2}
    assert torch.get_num_threads() == precision.threads


def test_an_earlier_choice_can_be_applied_again():
    apply(Precision(threads=1, dtype="fp32"))
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_the_users_mistake():
    with pytest.raises(ConfigError, match=r"compute\.device"):
        choose(ComputeConfig(device="cuda"))


def test_autocast_computes_products_in_bf16_only_where_chosen():
    layer, row = nn.Linear(4, 4), torch.ones(1, 4)
    with autocast(Precision(threads=1, dtype="bf16")):
        assert layer(row).dtype == torch.bfloat16
    with autocast(Precision(threads=1, dtype="fp32")):
        assert layer(row).dtype == torch.float32


def test_fp32_attention_equals_the_usual_one_with_left_and_right_padding():
    ids_BL = torch.arange(12).reshape(2, 6)
    mask_BL = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
    positions_BL = (mask_BL.cumsum(1) - 1).clamp(min=0)
    ours, usual = (
        _model(name)(input_ids=ids_BL, attention_mask=mask_BL, position_ids=positions_BL).logits
        for name in (attention_implementation("cpu"), "sdpa")
    )
    real = mask_BL.bool()
    torch.testing.assert_close(ours[real], usual[real], rtol=0, atol=1e-6)


def test_attention_stays_fp32_inside_autocast(monkeypatch):
    seen = set()
    real = torch.nn.functional.scaled_dot_product_attention

    def watch(query, key, value, **options):
        seen.update({query.dtype, key.dtype, value.dtype})
        assert not torch.is_autocast_enabled("cpu")
        return real(query, key, value, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
    with autocast(Precision(threads=1, dtype="bf16")):
        _model(attention_implementation("cpu"))(input_ids=torch.arange(6)[None])
    assert seen == {torch.float32}
