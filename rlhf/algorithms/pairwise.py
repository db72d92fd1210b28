"""Losses on pairs without a reference policy.

Shapes: P pairs. Log-probabilities are sums over a response's tokens, in nats; `tokens` are their counts. Every loss is one
value per pair.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

_LN_2 = 0.6931471805599453


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLogprobs:
    """What the policy thinks of both responses of each pair."""

    chosen_P: Tensor
    rejected_P: Tensor
    chosen_tokens_P: Tensor
    rejected_tokens_P: Tensor

    def per_token(self) -> tuple[Tensor, Tensor]:
        """Return the mean log-probability of a token (P,), chosen and rejected."""
        return self.chosen_P / self.chosen_tokens_P, self.rejected_P / self.rejected_tokens_P


def orpo(policy: PairLogprobs, *, odds_weight: float) -> Tensor:
    """Return -log p_w - odds_weight * log sigmoid(log odds_w - log odds_l) (P,) (Hong et al. 2024, eq. 6 and 7).

    p is the geometric mean of the tokens' probabilities (eq. 3), odds = p / (1 - p).
    """
    chosen_P, rejected_P = policy.per_token()
    return -chosen_P - odds_weight * logsigmoid(_log_odds(chosen_P) - _log_odds(rejected_P))


def cpo(
    policy: PairLogprobs, *, beta: float, loss: str, sft_weight: float, label_smoothing: float = 0.0
) -> Tensor:
    """Return the preference loss and sft_weight * -log p_w per token (P,) (Xu et al. 2024, eq. 3 to 5).

    `loss` is `sigmoid` (of the whole responses' log-probabilities), `hinge` (Zhao et al. 2023) or `ipo` (per token, Azar et
    al. 2023, eq. 17). TRL's CPO trainer has the same ones.
    """
    gap_P = beta * (policy.chosen_P - policy.rejected_P)
    chosen_mean_P, rejected_mean_P = policy.per_token()
    if loss == "sigmoid":
        preference_P = -(1 - label_smoothing) * logsigmoid(gap_P) - label_smoothing * logsigmoid(-gap_P)
    elif loss == "hinge":
        preference_P = torch.relu(1 - gap_P)
    else:
        preference_P = (chosen_mean_P - rejected_mean_P - 1 / (2 * beta)).square()
    return preference_P - sft_weight * chosen_mean_P


def simpo(policy: PairLogprobs, *, beta: float, margin: float, sft_weight: float = 0.0) -> Tensor:
    """Return -log sigmoid(beta * (log p_w - log p_l) - margin), p per token (P,) (Meng et al. 2024, eq. 6)."""
    chosen_P, rejected_P = policy.per_token()
    return -logsigmoid(beta * (chosen_P - rejected_P) - margin) - sft_weight * chosen_P


def _log_odds(logprobs_P: Tensor) -> Tensor:
    """Return log p - log(1 - p) (Maechler 2012 for the second term, which neither rounds to 0 nor to -inf)."""
    # A sure response has p = 1 and infinite odds; what is finite in fp32 is enough to saturate the sigmoid.
    logprobs_P = logprobs_P.clamp(max=-1e-7)
    near_0_P = logprobs_P > -_LN_2
    # Each branch sees only what it can bear: the other's gradient would be NaN, and 0 times NaN is NaN.
    log_rest_P = torch.where(
        near_0_P,
        (-torch.expm1(torch.where(near_0_P, logprobs_P, -_LN_2))).log(),
        torch.log1p(-torch.where(near_0_P, -_LN_2, logprobs_P).exp()),
    )
    return logprobs_P - log_rest_P
