"""From logits to log-probabilities, by the one rule that sampling and scoring share.

Shapes: R tokens, V vocabulary, B responses. Logits are a model's own, in its number type. Whatever is as wide as the
vocabulary is turned to fp32 a few rows at a time, so that no fp32 copy of all logits is made, let alone kept.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CELLS = {"cpu": 2**18}
"""Logits that are fp32 at a time: on a CPU they stay in its cache."""
_MANY_CELLS = 2**27
"""Elsewhere large pieces are faster."""


def policy_logits(logits: Tensor, *, temperature: float, pad_id: int) -> Tensor:
    """Return the fp32 logits (..., V) of what is sampled from: tempered, and never the pad id.

    Scoring with anything else than this makes the ratio of the first step differ from 1.
    """
    tempered = logits.float() / temperature
    pad = torch.zeros(tempered.shape[-1], dtype=torch.bool, device=tempered.device)
    pad[pad_id] = True
    # The smallest number rather than -inf, so that probability times logit is 0 and not NaN.
    return tempered.masked_fill(pad, torch.finfo(tempered.dtype).min)


def token_logprobs(logits_RV: Tensor, tokens_R: Tensor, *, temperature: float, pad_id: int) -> Tensor:
    """Return the log-probability (R,) of each token under the tempered logits without the pad id, fp32, in nats."""
    logprobs_R: Tensor = _TokenLogprobs.apply(logits_RV, tokens_R, temperature, pad_id)  # type: ignore[no-untyped-call]
    return logprobs_R


def entropy(logits_RV: Tensor, *, temperature: float, pad_id: int) -> Tensor:
    """Return the entropy (R,) of each row's distribution, in nats."""
    parts = []
    for rows in _pieces(logits_RV):
        logprobs = policy_logits(logits_RV[rows], temperature=temperature, pad_id=pad_id).log_softmax(-1)
        # Of the pad id it is -1e38, which a weight above 1 takes to infinity on the way back, and 0 times that is NaN.
        logprobs = logprobs.clamp(min=-1e4)
        parts.append(-(logprobs.exp() * logprobs).sum(-1))
    return torch.cat(parts)


def inverse_cdf(policy_logits_BV: Tensor, uniforms_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return the token (B,) at which the cumulative distribution passes each uniform number in [0, 1), and its
    log-probability (B,).

    Much cheaper than `torch.multinomial` on a CPU. The uniforms are fp32 and the sums fp64, so that rounding
    never reaches the end of the vocabulary; a token of probability 0 is never drawn.
    """
    probabilities_BV = policy_logits_BV.softmax(-1)
    cumulative_BV = probabilities_BV.cumsum(-1, dtype=torch.float64)
    thresholds_B1 = uniforms_B[:, None].double() * cumulative_BV[:, -1:]
    tokens_B1 = torch.searchsorted(cumulative_BV, thresholds_B1, right=True)
    return tokens_B1.squeeze(1), probabilities_BV.gather(1, tokens_B1).log().squeeze(1)


def _pieces(logits_RV: Tensor) -> Iterator[slice]:
    rows, vocabulary = logits_RV.shape
    size = max(1, _CELLS.get(logits_RV.device.type, _MANY_CELLS) // vocabulary)
    return (slice(start, start + size) for start in range(0, max(rows, 1), size))


class _TokenLogprobs(torch.autograd.Function):
    """log softmax at one token per row; backward, softmax is computed again from the logits that there are."""

    @staticmethod
    def forward(ctx: Any, logits_RV: Tensor, tokens_R: Tensor, temperature: float, pad_id: int) -> Tensor:
        tokens_R1 = tokens_R[:, None]
        chosen, normalisers = [], []
        for rows in _pieces(logits_RV):
            tempered = policy_logits(logits_RV[rows], temperature=temperature, pad_id=pad_id)
            chosen.append(tempered.gather(1, tokens_R1[rows]))
            normalisers.append(tempered.logsumexp(-1, keepdim=True))
        normalisers_R1 = torch.cat(normalisers)
        ctx.save_for_backward(logits_RV, tokens_R1, normalisers_R1)
        ctx.temperature, ctx.pad_id = temperature, pad_id
        return (torch.cat(chosen) - normalisers_R1).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_R: Tensor) -> tuple[Tensor, None, None, None]:
        logits_RV, tokens_R1, normalisers_R1 = ctx.saved_tensors
        gradient_RV = torch.empty_like(logits_RV)
        weight_R1 = gradient_R[:, None] / ctx.temperature
        for rows in _pieces(logits_RV):
            piece = policy_logits(logits_RV[rows], temperature=ctx.temperature, pad_id=ctx.pad_id)
            piece.sub_(normalisers_R1[rows]).exp_().mul_(-weight_R1[rows])
            piece.scatter_add_(1, tokens_R1[rows], weight_R1[rows])
            gradient_RV[rows] = piece
        return gradient_RV, None, None, None
