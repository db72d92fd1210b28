"""Losses and their gradients, on numbers that are put in the models' place."""

import math
from pathlib import Path

import pytest
import torch

from rlhf.conformance.backend import Backend, Models, Start
from rlhf.conformance.models import ANSWERS, QUESTIONS, WORSE
from rlhf.conformance.test_logprobs import adapter, in_memory

MASK = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
PAIRS = list(zip(QUESTIONS, ANSWERS, WORSE, strict=True))
LN_2 = math.log(2)


@pytest.mark.item(25)
def test_a_kl_in_the_loss_descends_the_kl_from_policy_to_reference(
    backend: Backend, models: Models, online: str
) -> None:
    """Exactly, in expectation: ten tokens, each as often as a policy of four tokens draws it."""
    policy, reference = (
        torch.tensor(p, dtype=torch.float64) for p in ([0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4])
    )
    tokens = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
    logits = policy.log().requires_grad_()
    logprobs = logits.log_softmax(0)[tokens][:, None]
    loss = backend.policy_loss(
        online, models, logprobs, logprobs.detach(), reference.log()[tokens][:, None],
        torch.zeros(10, dtype=torch.float64), torch.ones(10, 1, dtype=torch.bool), kl_coef=0.5,
    )  # fmt: skip
    (found,) = torch.autograd.grad(loss, logits)
    kl = (logits.softmax(0) * (logits.log_softmax(0) - reference.log())).sum()
    (expected,) = torch.autograd.grad(0.5 * kl, logits)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.item(34)
def test_nothing_in_the_padding_changes_the_policy_loss(
    backend: Backend, models: Models, online: str
) -> None:
    """Nor its gradient."""
    generator = torch.Generator().manual_seed(0)
    logprobs, old, reference = (-torch.rand(3, 3, 4, generator=generator)).unbind()

    def run(junk: float) -> tuple[torch.Tensor, torch.Tensor]:
        cells = zip((logprobs, old, reference), (junk, junk / 2, junk / 3), strict=True)
        now, then, fixed = (torch.where(MASK, real, padding) for real, padding in cells)
        now.requires_grad_()
        loss = backend.policy_loss(online, models, now, then, fixed, torch.tensor([1.0, -1.0, 0.5]), MASK)
        return loss.detach(), torch.autograd.grad(loss, now)[0]

    clean, polluted = run(0.0), run(-3.0)
    assert torch.equal(clean[0], polluted[0])
    assert torch.equal(clean[1], polluted[1])


@pytest.mark.item(36, trainer="ppo")
def test_the_clipped_value_loss_takes_the_larger_error(backend: Backend) -> None:
    """So its gradient is 0 exactly where the value has left the range and the clipped one is further off."""
    old, mask = torch.zeros(4, 1), torch.ones(4, 1, dtype=torch.bool)
    values = torch.tensor([[0.1], [0.5], [0.5], [-0.5]], requires_grad=True)
    returns = torch.tensor([[1.0], [1.0], [0.0], [-2.0]])
    loss = backend.value_loss(values, old, returns, mask, clip_range=0.2)
    # Errors: .9 | .5, clipped .8 | .5, clipped .2 | 1.5, clipped 1.8. The second and the fourth are clipped.
    (gradient,) = torch.autograd.grad(loss, values)
    assert (gradient[:, 0] != 0).tolist() == [True, False, True, False]
    squares = torch.tensor([0.81, 0.64, 0.25, 3.24]).mean().item()
    assert loss.item() in (pytest.approx(squares, abs=1e-5), pytest.approx(squares / 2, abs=1e-5))


@pytest.mark.item(27, trainer="reward")
def test_scores_far_apart_give_finite_losses(backend: Backend, models: Models) -> None:
    """log(1 + exp(400)) is 400."""
    chosen = torch.tensor([-200.0], requires_grad=True)
    loss, _ = backend.comparison_loss(models, chosen, torch.tensor([200.0]))
    assert loss.item() == pytest.approx(400.0, abs=1e-3)
    (gradient,) = torch.autograd.grad(loss, chosen)
    assert gradient.item() == pytest.approx(-1.0, abs=1e-6)
    assert backend.comparison_loss(models, -chosen, torch.tensor([-200.0]))[0].item() == 0.0


@pytest.mark.item(50, trainer="reward")
def test_swapped_sides_have_the_other_accuracy(backend: Backend, models: Models) -> None:
    """A tie is half right on either side: counted as wrong on both, half of a coin's luck is lost."""
    better, worse = torch.tensor([1.0, 0.5, 2.0, 1.0]), torch.tensor([0.0, 0.5, 1.0, 2.0])
    _, accuracy = backend.comparison_loss(models, better, worse)
    _, swapped = backend.comparison_loss(models, worse, better)
    assert accuracy == pytest.approx(1 - swapped, abs=1e-6)


@pytest.mark.item(46, trainer="dpo")
@pytest.mark.integration
@pytest.mark.parametrize(("loss", "beta", "expected"), [("sigmoid", 0.1, LN_2), ("ipo", 0.2, 1 / (4 * 0.04))])
def test_the_first_loss_of_dpo(
    backend: Backend, models: Models, loss: str, beta: float, expected: float
) -> None:
    """The policy is still the reference, so that every margin is 0."""
    found = backend.first_preference_loss(Start(folder=models.policy), PAIRS, loss=loss, beta=beta)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.item(21, trainer="dpo")
@pytest.mark.integration
@pytest.mark.parametrize("kind", ["adapter", "memory"])
def test_the_first_loss_of_dpo_where_the_policy_has_learnt_before(
    backend: Backend, models: Models, kind: str, tmp_path: Path
) -> None:
    """An adapter that continues, or a model in memory: the reference is the policy as it is, not as it once was."""
    start = (
        in_memory(models)
        if kind == "memory"
        else Start(folder=models.policy, adapter=adapter(models, tmp_path))
    )
    found = backend.first_preference_loss(start, PAIRS, loss="sigmoid", beta=0.1)
    assert found == pytest.approx(LN_2, abs=1e-5)
