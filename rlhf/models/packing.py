"""Sequences end to end in one row: nothing is computed that is not there.

A padded batch spends its time on padding, and on CPUs each new number of rows has its product planned anew. A packed row
has no padding but a few filling tokens, which make its length one of few. Legend: B sequences, L tokens, N tokens of all
sequences together, filling included.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.models.attention import NAME

MULTIPLE = 64
"""Rows of a matrix product come in multiples of this: planning a product for a new size costs more than computing it."""
_KINDS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True, slots=True)
class Packed:
    """What a model reads in place of a padded batch."""

    ids_1N: Tensor
    positions_1N: Tensor
    """Counted from the beginning of each sequence."""
    lengths_111B: Tensor
    """Lengths of the sequences; they stand where a mask would, in its four axes, for then a model hands them to the
    attention (`sdpa_fp32`) as they are."""

    def inputs(self) -> dict[str, Any]:
        """Return the arguments of a forward pass."""
        return {
            "input_ids": self.ids_1N,
            "attention_mask": self.lengths_111B,
            "position_ids": self.positions_1N,
            "use_cache": False,
        }


def pack(ids_BL: Tensor, attention_BL: Tensor) -> Packed:
    """Lay the real tokens of a padded batch end to end; what fills up is a sequence of its own."""
    real_BL = attention_BL.bool()
    lengths_B = real_BL.sum(dim=1)
    positions_BL = real_BL.cumsum(dim=1) - 1
    filling_F = torch.arange(-int(lengths_B.sum()) % MULTIPLE, device=ids_BL.device)
    return Packed(
        ids_1N=torch.cat([ids_BL[real_BL], torch.zeros_like(filling_F)])[None],
        positions_1N=torch.cat([positions_BL[real_BL], filling_F])[None],
        lengths_111B=torch.cat([lengths_B, lengths_B.new_tensor([len(filling_F)])])[None, None, None],
    )


def filled_up(indices_R: Tensor) -> Tensor:
    """Return the indices and, after them, zeros up to the next multiple."""
    return nn.functional.pad(indices_R, (0, -len(indices_R) % MULTIPLE))


def packs(model: nn.Module) -> bool:
    """Return whether the model keeps packed sequences apart: it attends by `sdpa_fp32` in every layer."""
    config = getattr(model, "config", None)
    kinds = getattr(config, "layer_types", None) or _KINDS
    return (
        getattr(config, "_attn_implementation", None) == NAME
        and getattr(model, "_supports_attention_backend", False)
        and not getattr(model, "_is_stateful", False)
        and set(kinds) <= _KINDS
    )
