"""A packed row gives what the padded batch gives, in every architecture that is packed."""

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from rlhf.models import packing
from rlhf.models.attention import register_fp32_attention
from rlhf.models.batches import ResponseBatch, collate, logits_and_hidden, score_tokens
from rlhf.models.packing import MULTIPLE, filled_up, pack, packs

SHAPE = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.4,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
PACKED = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=1),
    "qwen3": Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=8),
    "a window of four": MistralConfig(**SHAPE, num_key_value_heads=2, head_dim=8, sliding_window=4),
    "windows in every other layer": Gemma3TextConfig(
        **SHAPE, num_key_value_heads=1, head_dim=8, sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "gpt_neox": GPTNeoXConfig(**SHAPE),
    "learned positions": GPT2Config(
        vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.4, pad_token_id=0,
        bos_token_id=1, eos_token_id=1,
    ),
}  # fmt: skip


def model_of(config: PreTrainedConfig) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=register_fp32_attention()).eval()


def batch_of() -> ResponseBatch:
    prompts = [[5, 6, 7], [8] * 9, [9, 10, 11], [0, 0, 4]]
    responses = [[3, 4, 5, 6], [7], [2, 3, 2, 3], [8, 9, 10, 11, 12, 13, 14]]
    return collate(prompts, responses, pad_id=0, device=torch.device("cpu"))


@pytest.mark.parametrize("name", PACKED)
def test_values_and_gradients_of_a_packed_row_are_those_of_the_padded_batch(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    model, batch = model_of(PACKED[name]), batch_of()
    found = []
    for pack_it in (True, False):
        if not pack_it:
            monkeypatch.setattr("rlhf.models.batches.packs", lambda _: False)
        else:
            assert packs(model)
        logprobs_BT = score_tokens(model, batch, temperature=0.8, pad_id=0)
        _, hidden_RD = logits_and_hidden(model, batch)
        weights = torch.linspace(-1, 1, batch.mask_BT.numel()).view_as(batch.mask_BT)
        model.zero_grad()
        ((logprobs_BT * weights)[batch.mask_BT].sum() + hidden_RD.square().mean()).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((logprobs_BT.detach(), hidden_RD.detach(), gradient))
    for packed, padded in zip(*found, strict=True):
        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=2e-5)


def test_what_does_not_attend_by_our_function_alone_is_not_packed():
    bloom = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2))
    llama = model_of(PACKED["llama"])
    assert not packs(bloom)
    assert not packs(AutoModelForCausalLM.from_config(PACKED["llama"], attn_implementation="sdpa"))
    llama.config.layer_types = ["full_attention", "linear_attention"]
    assert not packs(llama)


def test_a_row_has_the_real_tokens_and_its_filling_is_a_sequence_of_its_own():
    ids = torch.tensor([[9, 5, 6], [4, 0, 8]])
    packed = pack(ids, torch.tensor([[0, 1, 1], [1, 1, 1]]))
    assert packed.ids_1N.shape == packed.positions_1N.shape == (1, MULTIPLE)
    assert packed.ids_1N[0, :6].tolist() == [5, 6, 4, 0, 8, 0]  # a real token may have the id of a filling
    assert packed.positions_1N[0, :7].tolist() == [0, 1, 0, 1, 2, 0, 1]
    assert packed.lengths_111B.flatten().tolist() == [2, 3, MULTIPLE - 5]
    full = pack(torch.ones(2, packing.MULTIPLE, dtype=torch.long), torch.ones(2, MULTIPLE, dtype=torch.long))
    assert full.ids_1N.shape[1] == 2 * MULTIPLE
    assert filled_up(torch.tensor([3, 4])).tolist() == [3, 4] + [0] * (MULTIPLE - 2)
