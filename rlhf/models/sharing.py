"""One copy of what several models have in common: frozen weights that are equal are kept once."""

from collections.abc import Hashable

import torch
from torch import nn


@torch.no_grad()
def share_frozen(*modules: nn.Module) -> int:
    """Let equal frozen parameters of different modules be one tensor, and return the bytes that this frees.

    What is trained stays its own, and so do two equal parameters of one module, which could not be saved otherwise. Weights
    that were packed into fewer bits are left alone. A caller that later changes a frozen weight in place changes it for all.
    """
    known: dict[Hashable, list[nn.Parameter]] = {}
    freed = 0
    for module in modules:
        unused = {key: list(parameters) for key, parameters in known.items()}
        for parameter in module.parameters():
            if parameter.requires_grad or not parameter.is_floating_point():
                continue
            # The sum finds the few that may be equal; all elements are compared then.
            key = (parameter.shape, parameter.dtype, parameter.device, parameter.double().sum().item())
            equal = [place for place, one in enumerate(unused.get(key, [])) if torch.equal(one, parameter)]
            if not equal:
                known.setdefault(key, []).append(parameter)
                continue
            other = unused[key].pop(equal[0])
            if other.data_ptr() != parameter.data_ptr():
                freed += parameter.numel() * parameter.element_size()
                parameter.data = other.data
    return freed


def distinct_bytes(*modules: nn.Module) -> int:
    """Return the bytes of the modules' parameters, each tensor counted once however many models have it."""
    sizes = {
        parameter.data_ptr(): parameter.numel() * parameter.element_size()
        for module in modules
        for parameter in module.parameters()
    }
    return sum(sizes.values())
