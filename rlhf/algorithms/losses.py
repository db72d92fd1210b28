"""The clipped losses of proximal policy optimisation.

Shapes: B responses, T response tokens. Every loss is a sum over tokens divided by `num_tokens`, the count of
the whole minibatch, so that adding up the gradients of its micro-batches gives the same as one pass.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlhf.algorithms.kl import ESTIMATORS
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
    dual_clip: float | None = None,
    weights_BT: Tensor | None = None,
) -> PolicyLoss:
    """Return the clipped surrogate, negated (Schulman et al. 2017, eq. 7).

    `dual_clip` bounds how much a bad token can weigh (Ye et al. 2020, eq. 5): without it the loss of a token of
    negative advantage grows with its ratio. `weights_BT` is what `importance_weights` gives.
    """
    # Beyond e^20 the ratio says nothing more and would overflow.
    log_ratio_BT = (logprobs_BT - old_logprobs_BT).masked_fill(~mask_BT, 0.0).clamp(-20.0, 20.0)
    ratio_BT = log_ratio_BT.exp()
    clipped_BT = ratio_BT.clamp(1 - clip_range, 1 + clip_range)
    surrogate_BT = torch.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)
    if dual_clip is not None:
        bounded_BT = torch.maximum(surrogate_BT, dual_clip * advantages_BT)
        surrogate_BT = torch.where(advantages_BT < 0, bounded_BT, surrogate_BT)
    if weights_BT is not None:
        surrogate_BT = surrogate_BT * weights_BT
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


def response_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_B1: Tensor,
    mask_BT: Tensor,
    *,
    clip_range: float,
    num_responses: int,
    dual_clip: float | None = None,
    weights_B1: Tensor | None = None,
) -> PolicyLoss:
    """Return the clipped surrogate of whole responses, negated: each is one action (Ahmadian et al. 2024, section 3.2).

    The sum is divided by `num_responses`, the count of the whole minibatch. `clipped` counts the tokens of responses whose
    ratio lies outside the clip range, and `kl` adds up estimates of the responses' KL.
    """
    logprobs_B1, old_logprobs_B1 = (
        values_BT.masked_fill(~mask_BT, 0.0).sum(dim=1, keepdim=True)
        for values_BT in (logprobs_BT, old_logprobs_BT)
    )
    found = policy_loss(
        logprobs_B1,
        old_logprobs_B1,
        advantages_B1,
        torch.ones_like(logprobs_B1, dtype=torch.bool),
        clip_range=clip_range,
        num_tokens=num_responses,
        dual_clip=dual_clip,
        weights_BT=weights_B1,
    )
    with torch.no_grad():
        outside_B1 = ((logprobs_B1 - old_logprobs_B1).exp() - 1).abs() > clip_range
    return replace(found, clipped=(outside_B1 & mask_BT).sum())


def importance_weights(
    logprobs_BT: Tensor, sampler_logprobs_BT: Tensor, mask_BT: Tensor, *, cap: float
) -> Tensor:
    """Return min(policy / sampler, cap) (B, T), 0 in the padding: truncated importance sampling.

    It makes up for a sampler whose arithmetic differs from the update's (Yao et al. 2025); the cap bounds the
    variance, at the price of a bias (Ionides 2008).
    """
    log_ratio_BT = (logprobs_BT - sampler_logprobs_BT).masked_fill(~mask_BT, 0.0)
    return log_ratio_BT.exp().clamp(max=cap).masked_fill(~mask_BT, 0.0)


def kl_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    ref_logprobs_BT: Tensor,
    mask_BT: Tensor,
    *,
    estimator: str,
    num_tokens: int,
    weights_BT: Tensor | None = None,
) -> Tensor:
    """Return the mean () of an estimator of KL(policy || reference) over tokens of the policy that sampled.

    Each token is weighed by its ratio, without gradient, so that the expectation stays that under the policy
    after it has moved away from the one that sampled. `weights_BT` count some tokens more than others.
    """
    log_ratio_BT = (logprobs_BT.detach() - old_logprobs_BT).masked_fill(~mask_BT, 0.0).clamp(-20.0, 20.0)
    # A pad id has log-probability -1e38, whose square would turn the gradient into NaN even behind a mask.
    estimate_BT = ESTIMATORS[estimator](
        logprobs_BT.masked_fill(~mask_BT, 0.0), ref_logprobs_BT.masked_fill(~mask_BT, 0.0)
    )
    if weights_BT is not None:
        estimate_BT = estimate_BT * weights_BT
    return masked_sum(log_ratio_BT.exp() * estimate_BT, mask_BT) / num_tokens


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
