import math

import pytest
import torch

from rlhf.algorithms.logprobs import entropy, inverse_cdf, policy_logits, token_logprobs


def test_log_probabilities_are_tempered_and_leave_the_pad_id_out():
    logits = torch.tensor([[[math.log(4.0), math.log(16.0), 50.0]]])
    scored = policy_logits(logits, temperature=2.0, pad_id=2)
    # At temperature 2 the weights are sqrt(4) = 2 and sqrt(16) = 4: probabilities 1/3 and 2/3.
    torch.testing.assert_close(
        token_logprobs(scored, torch.tensor([[0]])), torch.tensor([[math.log(1 / 3)]]), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        entropy(scored), torch.tensor([[math.log(3) - 2 / 3 * math.log(2)]]), rtol=0, atol=1e-6
    )


def test_entropy_of_a_uniform_distribution_is_the_log_of_its_size():
    scored = policy_logits(torch.zeros(1, 1, 9), temperature=1.0, pad_id=0)
    torch.testing.assert_close(entropy(scored), torch.tensor([[math.log(8)]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 1), (0.24, 1), (0.26, 3), (0.999999, 3), (1 - 2**-24, 3)]
)
def test_the_inverse_cdf_picks_the_token_whose_interval_holds_the_number(uniform: float, token: int):
    logits = torch.tensor([[-torch.inf, math.log(0.25), -torch.inf, math.log(0.75), -torch.inf]])
    assert inverse_cdf(logits, torch.tensor([uniform])).item() == token


def test_the_inverse_cdf_never_draws_the_pad_id_even_at_the_edges():
    logits = policy_logits(
        torch.randn(2, 7, generator=torch.Generator().manual_seed(0)), temperature=1.0, pad_id=6
    )
    assert (inverse_cdf(logits, torch.tensor([0.0, 1 - 2**-24])) < 6).all()
    first = policy_logits(torch.zeros(1, 7), temperature=1.0, pad_id=0)
    assert inverse_cdf(first, torch.tensor([0.0])).item() == 1


def test_drawn_frequencies_are_the_probabilities():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    drawn = inverse_cdf(probabilities.log().expand(20_000, 4), torch.rand(20_000, generator=generator))
    # three standard errors: 3 * sqrt(.25 / 20000) = 0.0106 at most
    torch.testing.assert_close(drawn.bincount(minlength=4) / 20_000, probabilities, rtol=0, atol=0.0106)
