"""What comparisons of responses to one prompt teach a reward model.

Shapes: G prompts, K responses to each (padded), R rankings of some of them. Each response has one score, however often it
is compared: the losses spread the scores of one forward pass over all comparisons. They return one value per prompt or
ranking, so that micro-batches add up: divide the sum by that of the whole batch's weights.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def comparison_shares(better_GKK: Tensor, mask_GK: Tensor) -> Tensor:
    """Return each comparison's weight divided by the K-choose-2 pairs of its prompt (G, K, K).

    `better_GKK[g, i, j]` is the weight with which response i is preferred to j; 0 where the two were not compared.
    So four responses count as much as two, and a prompt with ties less than one without (Ouyang et al. 2022, eq. 1).
    """
    size_G = mask_GK.sum(dim=1)
    return better_GKK / (size_G * (size_G - 1) / 2)[:, None, None]


def bradley_terry(
    scores_GK: Tensor,
    shares_GKK: Tensor,
    *,
    margins_GKK: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the sum over pairs of share x -log sigmoid(s_better - s_worse - margin) (G,) (Ouyang et al. 2022, eq. 1).

    A margin asks for that distance (Touvron et al. 2023, eq. 2); with `label_smoothing` e the loss counts (1 - e) as it
    stands and e with the responses swapped, which is right where so many labels are wrong (Mitchell 2023, eq. 3).
    """
    gap_GKK = scores_GK[:, :, None] - scores_GK[:, None, :]
    if margins_GKK is not None:
        gap_GKK = gap_GKK - margins_GKK
    loss_GKK = -(1 - label_smoothing) * logsigmoid(gap_GKK) - label_smoothing * logsigmoid(-gap_GKK)
    return (shares_GKK * loss_GKK).sum(dim=(1, 2))


def plackett_luce(scores_RK: Tensor, ranks_RK: Tensor) -> Tensor:
    """Return the negative log-likelihood of each ranking, per choice that it consists of (R,).

    The best is chosen from all, the next from the rest, and so on (Luce 1959; Plackett 1975). Equal ranks are ties: each
    of the tied is chosen from the same rest (Breslow 1974), so that a tie is likeliest at equal scores. Rank 0 was not
    ranked and says nothing. Two responses give the Bradley-Terry loss. Each ranking needs two ranked responses.
    """
    ranked_RK = ranks_RK > 0
    # [r, i, j]: j was still there when i was chosen; rank 0 is below every rank.
    rest_RKK = ranks_RK[:, None, :] >= ranks_RK[:, :, None]
    among_RK = scores_RK[:, None, :].masked_fill(~rest_RKK, -torch.inf).logsumexp(dim=2)
    chosen_RK = (scores_RK - among_RK).masked_fill(~ranked_RK, 0.0)
    return -chosen_RK.sum(dim=1) / (ranked_RK.sum(dim=1) - 1)


def centring(scores_GK: Tensor, mask_GK: Tensor) -> Tensor:
    """Return the square of twice the mean score of each prompt (G,): comparisons leave that mean free to drift.

    For two responses it is (chosen + rejected)^2 (Eisenstein et al. 2023).
    """
    return (2 * _prompt_mean(scores_GK, mask_GK)).square()


def length_correlation(scores_GK: Tensor, lengths_GK: Tensor, mask_GK: Tensor) -> Tensor:
    """Return the correlation () of score and length among the responses to one prompt, over all prompts.

    Its square as a penalty keeps a reward model from paying by the token (Chen et al. 2024, ODIN, section 3.2, with one
    head in place of two). 0 where scores or lengths do not differ.
    """
    scores_GK, lengths_GK = (
        (values_GK - _prompt_mean(values_GK, mask_GK)[:, None]).masked_fill(~mask_GK, 0.0)
        for values_GK in (scores_GK, lengths_GK)
    )
    # 1e-12 keeps the gradient of equal scores finite.
    return (scores_GK * lengths_GK).sum() * torch.rsqrt(
        scores_GK.square().sum() * lengths_GK.square().sum() + 1e-12
    )


def _prompt_mean(values_GK: Tensor, mask_GK: Tensor) -> Tensor:
    return values_GK.masked_fill(~mask_GK, 0.0).sum(dim=1) / mask_GK.sum(dim=1)
