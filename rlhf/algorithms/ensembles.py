"""One score out of those of several reward models (Coste et al. 2023, section 3.2).

Shapes: B responses, M members of the ensemble.
"""

from torch import Tensor


def combine(members_BM: Tensor, *, how: str, variance_coef: float = 0.0, std_coef: float = 0.0) -> Tensor:
    """Return one score per response (B,): the members' `mean`, the `worst` of them, or mean less what they disagree by.

    `uncertainty` subtracts `variance_coef` times the variance between members, `lower_bound` `std_coef` times their
    standard deviation (a lower confidence bound, in units of the score): where they disagree, nobody knows.
    """
    if how == "worst":
        return members_BM.amin(dim=1)
    mean_B = members_BM.mean(dim=1)
    if how == "uncertainty":
        return mean_B - variance_coef * members_BM.var(dim=1, correction=0)
    if how == "lower_bound":
        return mean_B - std_coef * disagreement(members_BM)
    if how == "mean":
        return mean_B
    raise ValueError(f"combine={how!r}; wanted mean, worst, uncertainty or lower_bound")


def disagreement(members_BM: Tensor) -> Tensor:
    """Return the standard deviation between the members (B,); 0 for one member."""
    return members_BM.std(dim=1, correction=0)
