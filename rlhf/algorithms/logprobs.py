"""From logits to log-probabilities, by the one rule that sampling and scoring share.

Shapes: B responses, T response tokens, V vocabulary.
"""

import torch
from torch import Tensor, nn


def policy_logits(logits: Tensor, *, temperature: float, pad_id: int) -> Tensor:
    """Return the fp32 logits (..., V) of what is sampled from: tempered, and never the pad id.

    Scoring with anything else than this makes the ratio of the first step differ from 1.
    """
    tempered = logits.float() / temperature
    pad = torch.zeros(tempered.shape[-1], dtype=torch.bool, device=tempered.device)
    pad[pad_id] = True
    # The smallest number rather than -inf, so that probability times logit is 0 and not NaN.
    return tempered.masked_fill(pad, torch.finfo(tempered.dtype).min)


def token_logprobs(policy_logits_BTV: Tensor, tokens_BT: Tensor) -> Tensor:
    """Return the log-probability (B, T) of each token, in nats."""
    return -nn.functional.cross_entropy(
        policy_logits_BTV.flatten(0, 1), tokens_BT.flatten(), reduction="none"
    ).view_as(tokens_BT)


def entropy(policy_logits_BTV: Tensor) -> Tensor:
    """Return the entropy (B, T) of each position's distribution, in nats."""
    logprobs_BTV = policy_logits_BTV.log_softmax(-1)
    return -(logprobs_BTV.exp() * logprobs_BTV).sum(-1)


def inverse_cdf(policy_logits_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """Return the token (B,) at which the cumulative distribution passes each uniform number in [0, 1).

    Much cheaper than `torch.multinomial` on a CPU. The uniforms are fp32 and the sums fp64, so that rounding
    never reaches the end of the vocabulary; a token of probability 0 is never drawn.
    """
    cumulative_BV = policy_logits_BV.softmax(-1).cumsum(-1, dtype=torch.float64)
    thresholds_B1 = uniforms_B[:, None].double() * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, thresholds_B1, right=True).squeeze(1)
