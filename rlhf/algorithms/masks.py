"""Sums and means over the tokens that count.

Shapes: B responses, T response tokens. A mask is True where a token counts; it comes from lengths, never from
token ids, because a pad id may occur in a text and an end-of-sequence id may occur twice.
"""

import torch
from torch import Tensor


def length_mask(lengths_B: Tensor, num_tokens: int) -> Tensor:
    """Return the mask (B, T) whose row b is True in its first `lengths_B[b]` places."""
    return torch.arange(num_tokens, device=lengths_B.device) < lengths_B[:, None]


def masked_sum(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the sum () over the tokens that count; the other cells may hold anything, even NaN."""
    return values_BT.masked_fill(~mask_BT, 0.0).sum()


def masked_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the mean () over the tokens that count, each of the same weight."""
    return masked_sum(values_BT, mask_BT) / mask_BT.sum()


def masked_variance(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the population variance () over the tokens that count."""
    return masked_mean((values_BT - masked_mean(values_BT, mask_BT)).square(), mask_BT)


def whiten(values_BT: Tensor, mask_BT: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Scale to variance 1 and, unless told not to, shift to mean 0 the tokens that count; the rest is 0."""
    mean = masked_mean(values_BT, mask_BT)
    # 1e-8 keeps a batch of equal values finite: it becomes zeros.
    whitened = (values_BT - mean) * torch.rsqrt(masked_variance(values_BT, mask_BT) + 1e-8)
    return (whitened if shift_mean else whitened + mean).masked_fill(~mask_BT, 0.0)
