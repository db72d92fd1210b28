import math
import warnings
from types import SimpleNamespace

import pytest
import torch

from rlhf.algorithms.pairwise import PairLogprobs, cpo, orpo, simpo

CHOSEN, REJECTED = [-3.0, -0.5, -40.0], [-6.0, -0.4, -10.0]
CHOSEN_TOKENS, REJECTED_TOKENS = [3, 1, 5], [4, 2, 5]


def _policy(requires_grad=False):
    tensors = {
        "chosen_P": torch.tensor(CHOSEN, dtype=torch.float64, requires_grad=requires_grad),
        "rejected_P": torch.tensor(REJECTED, dtype=torch.float64, requires_grad=requires_grad),
        "chosen_tokens_P": torch.tensor(CHOSEN_TOKENS),
        "rejected_tokens_P": torch.tensor(REJECTED_TOKENS),
    }
    return PairLogprobs(**tensors)


def _close(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def _sigmoid(value):
    return 1 / (1 + math.exp(-value))


def test_orpo_is_the_likelihood_and_the_odds_of_the_paper():
    expected = []
    for chosen, rejected, n, m in zip(CHOSEN, REJECTED, CHOSEN_TOKENS, REJECTED_TOKENS, strict=True):
        p, q = math.exp(chosen / n), math.exp(rejected / m)  # eq. 3: geometric means
        ratio = (p / (1 - p)) / (q / (1 - q))  # eq. 4 and 5
        # sigmoid(log x) = x / (1 + x), without a logarithm inside
        expected.append(-math.log(p) - 0.25 * math.log(ratio / (1 + ratio)))
    _close(orpo(_policy(), odds_weight=0.25), expected)


def test_orpo_by_hand():
    # One token each, p = 1/2 and q = 1/4: odds 1 and 1/3, ratio 3, sigmoid(log 3) = 3/4.
    policy = PairLogprobs(
        chosen_P=torch.tensor([math.log(0.5)]), rejected_P=torch.tensor([math.log(0.25)]),
        chosen_tokens_P=torch.tensor([1]), rejected_tokens_P=torch.tensor([1]),
    )  # fmt: skip
    expected = torch.tensor([math.log(2) + 2.0 * math.log(4 / 3)])
    torch.testing.assert_close(orpo(policy, odds_weight=2.0), expected, rtol=1e-6, atol=0)


def test_the_odds_of_a_sure_and_of_an_impossible_response_have_a_finite_gradient():
    chosen = torch.tensor([0.0, -1e-9, -300.0], requires_grad=True)
    policy = PairLogprobs(
        chosen_P=chosen, rejected_P=torch.tensor([-300.0, 0.0, -1e-9]),
        chosen_tokens_P=torch.ones(3), rejected_tokens_P=torch.ones(3),
    )  # fmt: skip
    loss = orpo(policy, odds_weight=1.0)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(chosen.grad).all()


def test_cpo_is_dpo_without_a_reference_and_likelihood_beside_it():
    expected = [
        -math.log(_sigmoid(0.3 * (chosen - rejected))) - 0.5 * chosen / n
        for chosen, rejected, n in zip(CHOSEN, REJECTED, CHOSEN_TOKENS, strict=True)
    ]
    _close(cpo(_policy(), beta=0.3, loss="sigmoid", sft_weight=0.5), expected)


def test_a_share_of_wrong_labels_counts_the_pair_the_other_way_round_too():
    expected = [
        -0.9 * math.log(_sigmoid(0.3 * (chosen - rejected)))
        - 0.1 * math.log(_sigmoid(0.3 * (rejected - chosen)))
        for chosen, rejected in zip(CHOSEN, REJECTED, strict=True)
    ]
    _close(cpo(_policy(), beta=0.3, loss="sigmoid", sft_weight=0.0, label_smoothing=0.1), expected)


def test_the_hinge_of_cpo_by_hand():
    # Gaps 3, -0.1 and -30, times 0.5; 1 - 1.5 is below 0.
    _close(cpo(_policy(), beta=0.5, loss="hinge", sft_weight=0.0), [0.0, 1.05, 16.0])


def test_the_ipo_of_cpo_by_hand():
    # Per token -1 + 1.5 = 0.5, -0.5 + 0.2 = -0.3, -8 + 2 = -6; less 1 / (2 * 0.25) = 2, squared.
    _close(cpo(_policy(), beta=0.25, loss="ipo", sft_weight=0.0), [2.25, 5.29, 64.0])


def test_simpo_is_per_token_and_asks_for_a_margin():
    expected = [
        -math.log(_sigmoid(2.5 * (chosen / n - rejected / m) - 1.4)) - 0.2 * chosen / n
        for chosen, rejected, n, m in zip(CHOSEN, REJECTED, CHOSEN_TOKENS, REJECTED_TOKENS, strict=True)
    ]
    _close(simpo(_policy(), beta=2.5, margin=1.4, sft_weight=0.2), expected)


@pytest.mark.integration
def test_they_are_those_of_trls_experimental_trainers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.cpo.cpo_trainer import CPOTrainer
        from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    policy, here = _policy(), SimpleNamespace(device="cpu")
    mean = policy.per_token()
    trl_orpo = ORPOTrainer.odds_ratio_loss(
        SimpleNamespace(beta=0.25, accelerator=here), *(x.float() for x in mean)
    )
    torch.testing.assert_close(
        (orpo(policy, odds_weight=0.25) + mean[0]).float(), -trl_orpo[0], rtol=1e-5, atol=1e-6
    )
    for loss in ("sigmoid", "hinge", "ipo", "simpo"):
        trainer = SimpleNamespace(
            alpha=0.0, accelerator=here, beta=0.3, loss_type=loss, label_smoothing=0.0, simpo_gamma=0.7
        )
        given = mean if loss in ("ipo", "simpo") else (policy.chosen_P, policy.rejected_P)
        ours = (
            simpo(policy, beta=0.3, margin=0.7)
            if loss == "simpo"
            else cpo(policy, beta=0.3, loss=loss, sft_weight=0.0)
        )
        torch.testing.assert_close(ours, CPOTrainer.cpo_loss(trainer, *given)[0], rtol=1e-9, atol=1e-9)
