"""Advantages and returns.

Shapes: B responses, T response tokens, G prompts, K responses to each of them.
"""

import torch
from torch import Tensor

from rlhf.algorithms.masks import masked_variance


def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return generalised advantage estimates and returns (B, T) (Schulman et al. 2015, eq. 16).

    A_t = sum over k of (gamma * lam)^k * delta_(t+k), delta_t = r_t + gamma * V_(t+1) - V_t. Value t is
    that of the state in which token t is chosen; after the last token nothing comes, so its next value is 0.
    """
    rewards_BT = rewards_BT.masked_fill(~mask_BT, 0.0)
    values_BT = values_BT.masked_fill(~mask_BT, 0.0)  # hence the value after the last token is 0
    next_values_BT = torch.cat([values_BT[:, 1:], torch.zeros_like(values_BT[:, :1])], dim=1)
    deltas_BT = rewards_BT + gamma * next_values_BT - values_BT
    advantage_B = torch.zeros_like(deltas_BT[:, 0])
    advantages: list[Tensor] = []
    for t in reversed(range(deltas_BT.shape[1])):
        advantage_B = deltas_BT[:, t] + gamma * lam * advantage_B
        advantages.append(advantage_B)
    advantages_BT = torch.stack(advantages[::-1], dim=1).masked_fill(~mask_BT, 0.0)
    return advantages_BT, advantages_BT + values_BT


def leave_one_out(rewards_GK: Tensor) -> Tensor:
    """Return each response's reward less the mean of the others to its prompt (G, K) (Ahmadian et al. 2024, eq. 8)."""
    size = rewards_GK.shape[1]
    others_GK = (rewards_GK.sum(dim=1, keepdim=True) - rewards_GK) / (size - 1)
    return rewards_GK - others_GK


def group_relative(rewards_GK: Tensor, *, scale: str) -> Tensor:
    """Return each response's reward less its prompt's mean, scaled (G, K) (Shao et al. 2024, section 4.1.2).

    `scale` divides by the standard deviation of the `group` or of the whole `batch`; `none` leaves it: division by the
    group's counts prompts more whose responses differ little (Liu et al. 2025).
    """
    advantages_GK = rewards_GK - rewards_GK.mean(dim=1, keepdim=True)
    if scale == "none":
        return advantages_GK
    std = rewards_GK.std(dim=1, keepdim=True) if scale == "group" else rewards_GK.std()
    return advantages_GK / (std + 1e-4)  # TRL's constant; equal rewards give zeros


def explained_variance(values_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return 1 - Var(return - value) / Var(return) over the tokens that count: 1 is perfect."""
    return 1 - masked_variance(returns_BT - values_BT, mask_BT) / (
        masked_variance(returns_BT, mask_BT) + 1e-8
    )
