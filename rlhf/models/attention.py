"""Attention in fp32 inside bf16 autocast: on CPUs the backward pass of bf16 attention is 4 to 6 times slower.

Legend: B sequences, H heads, Q query positions, S key positions, D head width.
"""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, autocast, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_fp32"


def register_fp32_attention() -> str:
    """Make `sdpa_fp32` known to transformers and return that name."""
    AttentionInterface.register(NAME, sdpa_fp32)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def sdpa_fp32(
    module: nn.Module,
    query_BHQD: Tensor,
    key_BHSD: Tensor,
    value_BHSD: Tensor,
    attention_mask: Tensor | None,
    **options: object,
) -> tuple[Tensor, None]:
    """Return scaled dot-product attention `(B, Q, H, D)` computed in fp32.

    A mask of integers holds the lengths of the sequences of a packed row (`rlhf.models.packing`).
    """
    states = query_BHQD.float(), key_BHSD.float(), value_BHSD.float()
    with autocast(query_BHQD.device.type, enabled=False):
        if attention_mask is not None and attention_mask.dtype is torch.int64:
            return _by_sequence(module, states, attention_mask.flatten().tolist(), options), None
        output_BQHD, _ = sdpa_attention_forward(
            module,
            *states,
            attention_mask,
            **options,  # type: ignore[arg-type]  # handed on as the model gave them
        )
    return output_BQHD, None


def _by_sequence(
    module: nn.Module, states_1HND: Sequence[Tensor], lengths: Sequence[int], options: dict[str, object]
) -> Tensor:
    """Let each sequence of a packed row attend to itself; neighbours of equal length go together."""
    runs = [(length, len(list(run))) for length, run in groupby(lengths) if length]
    pieces = (
        states.squeeze(0).split([length * count for length, count in runs], dim=1) for states in states_1HND
    )
    window = options.get("sliding_window")
    outputs_KHD = []
    for (length, count), *parts_HKD in zip(runs, *pieces, strict=True):
        query_BHLD, key_BHLD, value_BHLD = (
            part.unflatten(1, (count, length)).transpose(0, 1) for part in parts_HKD
        )
        mask = None  # causal
        if isinstance(window, int) and window < length:
            mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=parts_HKD[0].device)
            mask = mask.tril().triu(1 - window)
        output_BLHD, _ = sdpa_attention_forward(
            module,
            query_BHLD,
            key_BHLD,
            value_BHLD,
            mask,
            **options,  # type: ignore[arg-type]
        )
        outputs_KHD.append(output_BLHD.flatten(0, 1))
    return torch.cat(outputs_KHD)[None]
