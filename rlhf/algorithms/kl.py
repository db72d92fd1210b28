"""Estimators of KL(policy || reference) from sampled tokens, and the controller of its coefficient.

Shapes: B responses, T response tokens. With r = reference / policy at a token drawn from the policy
(Schulman 2020, "Approximating KL divergence"):

    k1 = -log r             unbiased; single tokens may be negative
    k2 = (log r)^2 / 2      biased value; its expected gradient is that of KL(policy || reference)
    k3 = r - 1 - log r      unbiased, never negative; its expected gradient is that of KL(reference || policy)
    k3+                     the value of k3 with the gradient of k2

As a term of the loss only k2 and k3+ descend KL(policy || reference); the gradient of k1 averages to zero.
In the reward no gradient flows, so k1, being unbiased there, is what the per-token penalty uses.
"""

from collections.abc import Callable, Mapping

from torch import Tensor


def k1(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """Return log policy - log reference per token (B, T), in nats; a clamp would bias it upwards."""
    return logprobs_BT - ref_logprobs_BT


def k2(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """Return half the squared log-ratio per token (B, T)."""
    return 0.5 * (logprobs_BT - ref_logprobs_BT).square()


def k3(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """Return r - 1 - log r per token (B, T), in nats."""
    log_ratio_BT = ref_logprobs_BT - logprobs_BT
    return log_ratio_BT.expm1() - log_ratio_BT


def k3_plus(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """Return k3 per token (B, T), whose gradient is that of k2 (straight-through)."""
    gradient_BT = k2(logprobs_BT, ref_logprobs_BT)
    return k3(logprobs_BT, ref_logprobs_BT).detach() + gradient_BT - gradient_BT.detach()


ESTIMATORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "k1": k1,
    "k2": k2,
    "k3": k3,
    "k3+": k3_plus,
}
"""By the names that configurations use."""


def adapt_coefficient(
    coefficient: float, *, kl: float, target: float, horizon: float, num_responses: int
) -> float:
    """Return the next KL coefficient (Ziegler et al. 2019, section 2.2); KLs in nats per response."""
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return coefficient * (1.0 + error * num_responses / horizon)
