"""From one score per response to one reward per token.

Shapes: B responses, T response tokens.
"""

import torch
from torch import Tensor


def shape_scores(
    scores_B: Tensor,
    finished_B: Tensor,
    lengths_B: Tensor,
    *,
    score_clip: float,
    missing_eos_penalty: float,
    length_penalty: float = 0.0,
) -> Tensor:
    """Return the scores (B,) clipped to plus and minus `score_clip`, less what is due for end and length.

    `missing_eos_penalty` is due where no stop id ended the response, `length_penalty` for each of its tokens.
    """
    unfinished_B = (~finished_B).to(scores_B.dtype)
    return (
        scores_B.clamp(-score_clip, score_clip)
        - missing_eos_penalty * unfinished_B
        - length_penalty * lengths_B.to(scores_B.dtype)
    )


def token_rewards(scores_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, *, kl_coef: float) -> Tensor:
    """Return -kl_coef * kl (B, T), plus the score at each last token (Ouyang et al. 2022, eq. 2).

    A row's sum is its score - kl_coef * its summed KL, exactly; padding holds 0.
    """
    rewards_BT = (-kl_coef * kl_BT).masked_fill(~mask_BT, 0.0)
    last_B = mask_BT.sum(dim=1) - 1
    score_BT = torch.zeros_like(rewards_BT).scatter(
        1, last_B[:, None], scores_B[:, None].to(rewards_BT.dtype)
    )
    return rewards_BT + score_BT
