"""How well a policy agrees with preferences that nothing was trained on, and whether it agrees less than it did.

Legend: P pairs, N prompts.
"""

import math

import torch
from torch import Tensor


def choice_probabilities(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """Return the probability that the policy picks the chosen of two responses that the reference drew (P,).

    Both arguments are log pi(y | x) - log ref(y | x). Two draws of the reference, weighted by pi / ref, are the
    policy's own choice between them: w+ / (w+ + w-) = sigmoid(log w+ - log w-). It is the Bradley-Terry probability
    of the policy's implicit reward (Rafailov et al. 2023, eq. 5, beta = 1), and exactly 0.5 before the first step.
    """
    return torch.sigmoid(chosen_P - rejected_P)


def mean_by_prompt(values_P: Tensor, weights_P: Tensor, prompt_P: Tensor) -> Tensor:
    """Return the weighted mean of each prompt's pairs (N,): they share responses, so only prompts are a sample.

    `prompt_P` numbers the prompts from 0 without a gap.
    """
    zeros_N = torch.zeros(int(prompt_P.max()) + 1, dtype=values_P.dtype)
    total_N = zeros_N.index_add(0, prompt_P, values_P * weights_P)
    return total_N / zeros_N.index_add(0, prompt_P, weights_P)


def change_in_standard_errors(before_N: Tensor, now_N: Tensor) -> float:
    """Return by how many standard errors of the paired difference the mean has risen; a fall is negative.

    Fewer than two prompts have no standard error, and show no change.
    """
    change_N = now_N - before_N
    if len(change_N) < 2 or not change_N.any():
        return 0.0
    error = change_N.std() / math.sqrt(len(change_N))
    return float(change_N.mean() / error)
