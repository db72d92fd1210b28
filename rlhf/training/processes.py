"""One policy, several processes: each samples and differentiates its share, and all learn from the whole.

Every process holds all weights and takes the same steps (data parallelism). What a rollout is apart from its weights is small,
so each process gets all of it, and everything between rollout and gradient is computed by the same code as in one process.
Processes are those of `accelerate launch` or `torchrun`; without these there is one.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch import Tensor, nn

Item = TypeVar("Item")


def join(device: str) -> torch.device:
    """Meet the other processes, if there are any, and return the device of this one."""
    state = PartialState(cpu=device == "cpu")
    return state.device if state.num_processes > 1 else torch.device(device)


def number() -> int:
    """Return how many processes there are."""
    return int(PartialState().num_processes)


def is_first() -> bool:
    """Return whether this process is the one that writes files and reports."""
    return bool(PartialState().is_main_process)


def wait() -> None:
    """Wait for the others."""
    PartialState().wait_for_everyone()


def share(num_items: int) -> slice:
    """Return the place of this process's items in a list that all have; shares differ by one item at most."""
    state = PartialState()
    first, last = (
        num_items * rank // state.num_processes for rank in (state.process_index, state.process_index + 1)
    )
    return slice(first, last)


def dealt(items: Sequence[Item]) -> Sequence[Item]:
    """Return every n-th item: of a sorted list, each process gets as much small as large."""
    state = PartialState()
    return items[state.process_index :: state.num_processes]


def together(shares: Sequence[Item]) -> list[Item]:
    """Return the items of all processes, in the order of `share`."""
    return list(gather_object(list(shares)))


def total(values: Tensor, *, largest: bool = False) -> Tensor:
    """Return the sum, or the largest, of the processes' values."""
    summed: Tensor = reduce(values, reduction="max" if largest else "sum")
    return summed


def add_up_gradients(module: nn.Module) -> None:
    """Give each process the sum of all gradients; losses are divided by the count of the whole minibatch already."""
    if number() == 1:
        return
    for parameter in module.parameters():
        if parameter.requires_grad:
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = total(own)
