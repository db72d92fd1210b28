"""One policy, several processes: each samples and differentiates its share, and all learn from the whole.

Every process holds all weights and takes the same steps (data parallelism). What a rollout is apart from its weights is small,
so each process gets all of it, and everything between rollout and gradient is computed by the same code as in one process.
Processes are those of `accelerate launch` or `torchrun`; without these there is one. The trainers of transformers and TRL can also
share the weights out (FSDP2), as accelerate's configuration says; here they are put together again.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from schemas.errors import ConfigError

Item = TypeVar("Item")


def join(device: str, *, whole: str = "") -> torch.device:
    """Meet the other processes, if there are any, and return the device of this one.

    `whole` names a method that needs all weights in each process, as those do that sample or take steps of their own; raises
    ConfigError where accelerate is to share them out.
    """
    if whole and (kind := sharding()):
        raise ConfigError(
            f"{whole} cannot share weights out, and compute.stages names a configuration of accelerate for {kind}; "
            "use infra/accelerate/ddp.yaml for this stage, or none."
        )
    state = PartialState(cpu=device == "cpu")
    return state.device if state.num_processes > 1 else torch.device(device)


def sharding() -> str:
    """Return by what accelerate's configuration shares weights or optimizer state out; empty: each process has all."""
    asked = (name for name in ("FSDP", "DEEPSPEED") if os.environ.get(f"ACCELERATE_USE_{name}") == "true")
    return next(asked, "")


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


def gather_weights(module: nn.Module) -> None:
    """Give a module that FSDP2 has shared out its whole weights back, on the CPU; it is read from then on, and not called."""
    whole: dict[int, nn.Parameter] = {}  # tied weights stay one
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if isinstance(parameter, DTensor):
                if id(parameter) not in whole:
                    full = parameter.full_tensor().detach().cpu()
                    whole[id(parameter)] = nn.Parameter(full, requires_grad=parameter.requires_grad)
                setattr(part, name, whole[id(parameter)])
