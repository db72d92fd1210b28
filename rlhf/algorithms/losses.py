"""The clipped losses of proximal policy optimisation.

Shapes: B responses, T response tokens. Every loss is a sum over tokens divided by `num_tokens`, the count of
the whole minibatch, so that adding up the gradients of its micro-batches gives the same as one pass.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.algorithms.masks import masked_sum


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The policy's loss, and sums over tokens that show how far it has moved from the policy that sampled."""

    loss: Tensor
    """() to be differentiated."""
    clipped: Tensor
    """() number of tokens whose ratio lies outside the clip range."""
    kl: Tensor
    """() sum of k3 estimates of KL(old || new), in nats."""
    ratio_deviation: Tensor
    """() largest abs(ratio - 1); exactly 0 before the first optimizer step."""


@dataclass(frozen=True, slots=True)
class ValueLoss:
    """The critic's loss."""

    loss: Tensor
    """() to be differentiated."""
    clipped: Tensor
    """() number of tokens whose clipped branch is the larger, hence without gradient."""


def policy_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_range: float,
    num_tokens: int,
) -> PolicyLoss:
    """Return the clipped surrogate, negated (Schulman et al. 2017, eq. 7)."""
    # Beyond e^20 the ratio says nothing more and would overflow.
    log_ratio_BT = (logprobs_BT - old_logprobs_BT).masked_fill(~mask_BT, 0.0).clamp(-20.0, 20.0)
    ratio_BT = log_ratio_BT.exp()
    clipped_BT = ratio_BT.clamp(1 - clip_range, 1 + clip_range)
    surrogate_BT = torch.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)
    with torch.no_grad():
        outside_BT = ((ratio_BT - 1).abs() > clip_range) & mask_BT
        kl_BT = log_ratio_BT.expm1() - log_ratio_BT
        deviation = (ratio_BT - 1).abs().max()
    return PolicyLoss(
        loss=-masked_sum(surrogate_BT, mask_BT) / num_tokens,
        clipped=outside_BT.sum(),
        kl=masked_sum(kl_BT, mask_BT),
        ratio_deviation=deviation,
    )


def value_loss(
    values_BT: Tensor,
    old_values_BT: Tensor,
    returns_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_range: float,
    num_tokens: int,
) -> ValueLoss:
    """Return half the larger squared error of the value and of the value clipped around the old one."""
    clipped_BT = old_values_BT + (values_BT - old_values_BT).clamp(-clip_range, clip_range)
    errors_BT = (values_BT - returns_BT).square()
    clipped_errors_BT = (clipped_BT - returns_BT).square()
    return ValueLoss(
        loss=0.5 * masked_sum(torch.maximum(errors_BT, clipped_errors_BT), mask_BT) / num_tokens,
        clipped=((clipped_errors_BT > errors_BT) & mask_BT).sum(),
    )
