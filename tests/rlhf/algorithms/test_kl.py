import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlhf.algorithms.kl import adapt_coefficient, k1, k2, k3, k3_plus

POLICY = torch.tensor([0.5, 0.2, 0.1, 0.15, 0.05], dtype=torch.float64)
REFERENCE = torch.tensor([0.2, 0.3, 0.2, 0.1, 0.2], dtype=torch.float64)
KL = (POLICY * (POLICY / REFERENCE).log()).sum()
Estimator = Callable[[Tensor, Tensor], Tensor]


def expected_gradient(estimator: Estimator) -> Tensor:
    """Gradient with respect to the logits, averaged exactly over tokens drawn from the policy."""
    logits = POLICY.log().clone().requires_grad_()
    estimate = estimator(logits.log_softmax(0), REFERENCE.log())
    (gradient,) = torch.autograd.grad((POLICY * estimate).sum(), logits)
    return gradient


def true_gradient(left: str) -> Tensor:
    logits = POLICY.log().clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    if left == "policy":
        divergence = (logprobs.exp() * (logprobs - REFERENCE.log())).sum()
    else:
        divergence = (REFERENCE * (REFERENCE.log() - logprobs)).sum()
    (gradient,) = torch.autograd.grad(divergence, logits)
    return gradient


def test_estimators_by_hand():
    policy, reference = torch.tensor([[math.log(0.5)]]), torch.tensor([[math.log(0.25)]])
    # r = 0.25 / 0.5 = 0.5, log r = -ln 2
    torch.testing.assert_close(k1(policy, reference).item(), math.log(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(k2(policy, reference).item(), math.log(2) ** 2 / 2, rtol=0, atol=1e-6)
    torch.testing.assert_close(k3(policy, reference).item(), math.log(2) - 0.5, rtol=0, atol=1e-6)
    torch.testing.assert_close(k3_plus(policy, reference).item(), math.log(2) - 0.5, rtol=0, atol=1e-6)


@pytest.mark.parametrize("estimator", [k1, k3, k3_plus])
def test_unbiased_estimators_average_to_the_divergence(estimator: Estimator):
    estimate = (POLICY * estimator(POLICY.log(), REFERENCE.log())).sum()
    torch.testing.assert_close(estimate, KL, rtol=0, atol=1e-12)


def test_k1_keeps_its_sign_and_k3_is_never_negative():
    assert k1(POLICY.log(), REFERENCE.log()).min() < 0
    assert k3(POLICY.log(), REFERENCE.log()).min() >= 0


@pytest.mark.parametrize("estimator", [k2, k3_plus])
def test_reverse_kl_gradient_is_that_of_k2_and_k3_plus(estimator: Estimator):
    torch.testing.assert_close(expected_gradient(estimator), true_gradient("policy"), rtol=0, atol=1e-12)


def test_k1_has_no_gradient_and_k3_that_of_the_forward_kl():
    torch.testing.assert_close(expected_gradient(k1), torch.zeros_like(POLICY), rtol=0, atol=1e-12)
    torch.testing.assert_close(expected_gradient(k3), true_gradient("reference"), rtol=0, atol=1e-12)


def test_the_adaptive_coefficient_follows_the_planted_response():
    # kl = 18 exp(-4 coef): 6 nats at coef = ln(3) / 4 = 0.27465
    coefficient, updates = 0.15, 0
    while abs(18 * math.exp(-4 * coefficient) / 6 - 1) > 0.02 and updates < 100:
        kl = 18 * math.exp(-4 * coefficient)
        coefficient = adapt_coefficient(coefficient, kl=kl, target=6, horizon=10_000, num_responses=512)
        updates += 1
    assert updates == 82
    for _ in range(400):
        kl = 18 * math.exp(-4 * coefficient)
        coefficient = adapt_coefficient(coefficient, kl=kl, target=6, horizon=10_000, num_responses=512)
    assert coefficient == pytest.approx(math.log(3) / 4, abs=1e-4)
