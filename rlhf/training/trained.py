"""A module with the optimizer of its trainable parameters: what steps, and what a checkpoint has to keep."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True, slots=True)
class Trained:
    """A module and the optimizer of its trainable parameters."""

    module: nn.Module
    optimizer: Optimizer
    learning_rate: float
    """Reached at the end of the warm-up."""

    @classmethod
    def by_adamw(cls, module: nn.Module, learning_rate: float) -> "Trained":
        """Train what requires a gradient by AdamW without weight decay."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, fused=True)
        return cls(module, optimizer, learning_rate)

    def step(self, *, scale: float, max_grad_norm: float) -> float:
        """Clip, step at the scaled learning rate, and return the gradient's norm before clipping."""
        group = self.optimizer.param_groups[0]
        norm = nn.utils.clip_grad_norm_(group["params"], max_grad_norm)
        group["lr"] = self.learning_rate * scale
        self.optimizer.step()
        return norm.item()

    def forget_gradient(self) -> None:
        """Begin the next gradient at nothing."""
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Return the trainable parameters and what the optimizer remembers of each, by name."""
        tensors = self.weights()
        for name, parameter in self._parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{name}:{key}"] = value
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned."""
        self.set_weights(tensors)
        for name, parameter in self._parameters():
            memory = {
                key.removeprefix(f"{name}:"): value
                for key, value in tensors.items()
                if key.startswith(f"{name}:")
            }
            # Fused, the count of steps lies beside the rest; elsewhere it would stay on the CPU.
            self.optimizer.state[parameter] = {
                key: value.to(parameter.device) for key, value in memory.items()
            }

    def weights(self) -> dict[str, Tensor]:
        """Return the trainable parameters by name, themselves and not copies."""
        return {name: parameter.detach() for name, parameter in self._parameters()}

    @torch.no_grad()
    def set_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `weights` returned."""
        for name, parameter in self._parameters():
            parameter.copy_(tensors[name])

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]
