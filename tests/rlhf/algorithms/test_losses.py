import math

import pytest
import torch
from torch import Tensor

from rlhf.algorithms.losses import importance_weights, kl_loss, policy_loss, value_loss
from rlhf.algorithms.masks import length_mask

ONE = torch.ones(1, 1).bool()
LENGTHS = torch.tensor([5, 1, 3, 2, 5, 4, 1, 2])
MASK = length_mask(LENGTHS, 5)


def cell(value: float) -> Tensor:
    return torch.tensor([[value]])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "has_gradient"),
    [
        (1.5, 2.0, -2.4, False),  # gained enough: clipped at 1.2 * 2
        (1.5, -2.0, 3.0, True),  # became likelier though bad: the full 1.5 * 2
        (0.5, 2.0, -1.0, True),  # became rarer though good: 0.5 * 2
        (0.5, -2.0, 1.6, False),  # lost enough: clipped at 0.8 * 2
        (1.1, 2.0, -2.2, True),  # inside the range: as it is
    ],
)
def test_policy_loss_by_hand(ratio: float, advantage: float, loss: float, has_gradient: bool):
    logprobs = cell(math.log(ratio)).requires_grad_()
    result = policy_loss(logprobs, cell(0.0), cell(advantage), ONE, clip_range=0.2, num_tokens=1)
    result.loss.backward()
    torch.testing.assert_close(result.loss.item(), loss, rtol=0, atol=1e-6)
    assert logprobs.grad is not None
    assert (logprobs.grad.item() != 0) is has_gradient
    assert result.clipped.item() == (abs(ratio - 1) > 0.2)
    torch.testing.assert_close(result.kl.item(), ratio - 1 - math.log(ratio), rtol=0, atol=1e-6)


def test_before_the_first_step_the_ratio_is_one_and_nothing_is_clipped():
    logprobs = torch.randn(8, 5)
    result = policy_loss(logprobs, logprobs, torch.randn(8, 5), MASK, clip_range=0.2, num_tokens=23)
    assert (result.clipped.item(), result.kl.item(), result.ratio_deviation.item()) == (0, 0.0, 0.0)


def test_an_extreme_log_ratio_stays_finite():
    logprobs = cell(500.0).requires_grad_()
    result = policy_loss(logprobs, cell(0.0), cell(-1.0), ONE, clip_range=0.2, num_tokens=1)
    result.loss.backward()
    assert torch.isfinite(result.loss)
    assert logprobs.grad is not None
    assert torch.isfinite(logprobs.grad).all()


@pytest.mark.parametrize(
    ("value", "target", "loss", "has_gradient"),
    [
        # old value 0, clip 0.2
        (0.5, 1.0, 0.5 * 0.64, False),  # clipped 0.2 is farther from 1: (0.8)^2, a constant
        (0.5, 0.0, 0.5 * 0.25, True),  # moved away from the target: (0.5)^2
        (0.1, 1.0, 0.5 * 0.81, True),  # inside the range: (0.9)^2
        (-0.5, -0.1, 0.5 * 0.16, True),  # overshot: (-0.4)^2 against (-0.1)^2
    ],
)
def test_value_loss_by_hand(value: float, target: float, loss: float, has_gradient: bool):
    values = cell(value).requires_grad_()
    result = value_loss(values, cell(0.0), cell(target), ONE, clip_range=0.2, num_tokens=1)
    result.loss.backward()
    torch.testing.assert_close(result.loss.item(), loss, rtol=0, atol=1e-6)
    assert values.grad is not None
    assert (values.grad.item() != 0) is has_gradient
    assert result.clipped.item() == (not has_gradient)


@pytest.mark.parametrize("rows", [8, 4, 2, 1])
def test_micro_batches_of_ragged_responses_add_up_to_the_minibatch(rows: int):
    generator = torch.Generator().manual_seed(0)
    new, old, targets = (torch.randn(8, 5, generator=generator, dtype=torch.float64) for _ in range(3))

    def gradients(size: int) -> tuple[Tensor, Tensor]:
        logprobs, values = new.clone().requires_grad_(), new.clone().requires_grad_()
        for start in range(0, 8, size):
            part = slice(start, start + size)
            shared = (old[part], targets[part], MASK[part])
            policy_loss(logprobs[part], *shared, clip_range=0.2, num_tokens=23).loss.backward()
            value_loss(values[part], *shared, clip_range=0.2, num_tokens=23).loss.backward()
        assert logprobs.grad is not None
        assert values.grad is not None
        return logprobs.grad, values.grad

    assert int(LENGTHS.sum()) == 23
    torch.testing.assert_close(gradients(rows), gradients(8), rtol=0, atol=1e-15)
    # Each token's gradient is its own term over 23, wherever it stands.
    ratio = (new - old).exp()
    free = torch.where(targets > 0, ratio < 1.2, ratio > 0.8) & MASK
    expected = torch.where(free, -ratio * targets / 23, 0.0)
    torch.testing.assert_close(gradients(rows)[0], expected, rtol=0, atol=1e-12)


def test_what_padding_holds_changes_neither_loss():
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(8, 5, generator=generator) for _ in range(3)]
    junk = [torch.where(MASK, tensor, 1e4 * torch.randn(8, 5, generator=generator)) for tensor in tensors]
    clean, dirty = (policy_loss(*group, MASK, clip_range=0.2, num_tokens=23) for group in (tensors, junk))
    assert (clean.loss, clean.clipped, clean.kl, clean.ratio_deviation) == (
        dirty.loss,
        dirty.clipped,
        dirty.kl,
        dirty.ratio_deviation,
    )
    clean_value, dirty_value = (
        value_loss(*group, MASK, clip_range=0.2, num_tokens=23) for group in (tensors, junk)
    )
    assert (clean_value.loss, clean_value.clipped) == (dirty_value.loss, dirty_value.clipped)


def test_dual_clip_bounds_a_bad_token_whose_ratio_explodes_and_nothing_else():
    for ratio, advantage, loss in (
        (5.0, -2.0, 6.0),  # 5 * 2 would be 10; bounded at 3 * 2
        (2.0, -2.0, 4.0),  # below the bound
        (5.0, 2.0, -2.4),  # a good token is clipped as ever
    ):
        result = policy_loss(
            cell(math.log(ratio)),
            cell(0.0),
            cell(advantage),
            ONE,
            clip_range=0.2,
            num_tokens=1,
            dual_clip=3.0,
        )
        assert result.loss.item() == pytest.approx(loss, abs=1e-5)


def test_importance_weights_are_policy_over_sampler_up_to_the_cap():
    logprobs, sampler = torch.tensor([[-1.0, -1.0, 7.0]]), torch.tensor([[-1.5, -4.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    weights = importance_weights(logprobs, sampler, mask, cap=2.0)
    # e^.5 = 1.6487; e^3 = 20 is capped; padding weighs nothing
    torch.testing.assert_close(weights, torch.tensor([[1.64872, 2.0, 0.0]]), rtol=0, atol=1e-5)
    plain = policy_loss(cell(0.0), cell(0.0), cell(2.0), ONE, clip_range=0.2, num_tokens=1)
    weighed = policy_loss(
        cell(0.0), cell(0.0), cell(2.0), ONE, clip_range=0.2, num_tokens=1, weights_BT=cell(0.5)
    )
    assert weighed.loss.item() == pytest.approx(0.5 * plain.loss.item(), abs=1e-7)


@pytest.mark.parametrize("estimator", ["k2", "k3+"])
def test_the_kl_loss_descends_the_reverse_kl_after_the_policy_has_left_its_sampler(estimator: str):
    old = torch.tensor([0.3, 0.3, 0.2, 0.2], dtype=torch.float64)
    policy = torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
    reference = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64)
    logits = policy.log().requires_grad_()
    everything = torch.ones(1, 1).bool()

    def estimate(token: int) -> Tensor:
        logprobs = logits.log_softmax(0)[token].view(1, 1)
        old_logprobs, ref_logprobs = (part.log()[token].view(1, 1) for part in (old, reference))
        return kl_loss(logprobs, old_logprobs, ref_logprobs, everything, estimator=estimator, num_tokens=1)

    # Exact expectation over tokens of the policy that sampled.
    expected = sum(old[token] * estimate(token) for token in range(4))
    assert isinstance(expected, Tensor)
    (found,) = torch.autograd.grad(expected, logits)
    logprobs = logits.log_softmax(0)
    (wanted,) = torch.autograd.grad((logprobs.exp() * (logprobs - reference.log())).sum(), logits)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
