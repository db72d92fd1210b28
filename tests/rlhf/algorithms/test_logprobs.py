import math

import pytest
import torch

from rlhf.algorithms import logprobs as logprobs_module
from rlhf.algorithms.logprobs import entropy, inverse_cdf, policy_logits, token_logprobs


def test_log_probabilities_are_tempered_and_leave_the_pad_id_out():
    logits = torch.tensor([[math.log(4.0), math.log(16.0), 50.0]])
    rule = {"temperature": 2.0, "pad_id": 2}
    # At temperature 2 the weights are sqrt(4) = 2 and sqrt(16) = 4: probabilities 1/3 and 2/3.
    torch.testing.assert_close(
        token_logprobs(logits, torch.tensor([0]), **rule), torch.tensor([math.log(1 / 3)]), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        entropy(logits, **rule), torch.tensor([math.log(3) - 2 / 3 * math.log(2)]), rtol=0, atol=1e-6
    )


def test_entropy_of_a_uniform_distribution_is_the_log_of_its_size():
    found = entropy(torch.zeros(1, 9), temperature=1.0, pad_id=0)
    torch.testing.assert_close(found, torch.tensor([math.log(8)]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_and_their_gradient_are_those_of_the_whole_log_softmax(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(logprobs_module._CELLS, "cpu", 3 * 11)  # three rows at a time, and one in the end
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 11, generator=generator).to(dtype).requires_grad_()
    tokens = torch.randint(1, 11, (7,), generator=generator)
    weights = 3 * torch.randn(7, generator=generator)
    plain = (logits[:, 1:].float() / 0.7).log_softmax(-1)  # the pad id is no choice at all
    rule = {"temperature": 0.7, "pad_id": 0}
    for found, expected in (
        (token_logprobs(logits, tokens, **rule), plain.gather(1, tokens[:, None] - 1).squeeze(1)),
        (entropy(logits, **rule), -(plain.exp() * plain).sum(1)),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        pairs = [
            torch.autograd.grad(value @ weights, logits, retain_graph=True)[0] for value in (found, expected)
        ]
        torch.testing.assert_close(*pairs, rtol=0, atol=1e-6 if dtype is torch.float32 else 4e-3)
    assert (pairs[0][:, 0] == 0).all()


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 1), (0.24, 1), (0.26, 3), (0.999999, 3), (1 - 2**-24, 3)]
)
def test_the_inverse_cdf_picks_the_token_whose_interval_holds_the_number(uniform: float, token: int):
    logits = torch.tensor([[-torch.inf, math.log(0.25), -torch.inf, math.log(0.75), -torch.inf]])
    drawn, logprob = inverse_cdf(logits, torch.tensor([uniform]))
    assert drawn.item() == token
    torch.testing.assert_close(logprob, logits[:, token], rtol=0, atol=1e-6)


def test_the_inverse_cdf_never_draws_the_pad_id_even_at_the_edges():
    logits = policy_logits(
        torch.randn(2, 7, generator=torch.Generator().manual_seed(0)), temperature=1.0, pad_id=6
    )
    assert (inverse_cdf(logits, torch.tensor([0.0, 1 - 2**-24]))[0] < 6).all()
    first = policy_logits(torch.zeros(1, 7), temperature=1.0, pad_id=0)
    assert inverse_cdf(first, torch.tensor([0.0]))[0].item() == 1


def test_drawn_frequencies_are_the_probabilities():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    drawn, _ = inverse_cdf(probabilities.log().expand(20_000, 4), torch.rand(20_000, generator=generator))
    # three standard errors: 3 * sqrt(.25 / 20000) = 0.0106 at most
    torch.testing.assert_close(drawn.bincount(minlength=4) / 20_000, probabilities, rtol=0, atol=0.0106)
