"""The state of a training loop on disk: safetensors and JSON, complete or absent, never more than one.

A checkpoint is written beside its place and renamed into it, so that a process killed at any moment leaves
the old one or the new one. There is no random state to save: generators are derived from seed and iteration.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from schemas.errors import ConfigError

_PREFIX = "iteration-"
_PARTIAL = "partial-"


@dataclass(frozen=True, slots=True)
class Trained:
    """A module and the optimizer of its trainable parameters."""

    module: nn.Module
    optimizer: Optimizer
    learning_rate: float
    """Reached at the end of the warm-up."""

    def state(self) -> dict[str, Tensor]:
        """Return the trainable parameters and what the optimizer remembers of each, by name."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._parameters():
            tensors[name] = parameter.detach()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{name}:{key}"] = value
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned."""
        for name, parameter in self._parameters():
            with torch.no_grad():
                parameter.copy_(tensors[name])
            memory = {
                key.removeprefix(f"{name}:"): value
                for key, value in tensors.items()
                if key.startswith(f"{name}:")
            }
            # Adam counts its steps in a CPU tensor, whatever the device of the rest.
            self.optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in memory.items()
            }

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]


def save_checkpoint(
    folder: Path,
    *,
    iteration: int,
    trained: Mapping[str, Trained],
    rollouts: pl.DataFrame,
    metrics: Mapping[str, float],
    settings: str,
) -> None:
    """Replace the checkpoint in the folder by one that has `iteration` finished iterations."""
    for leftover in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(leftover)
    partial = folder / f"{_PARTIAL}{iteration}"
    partial.mkdir(parents=True)
    for name, part in trained.items():
        save_file(
            {key: value.contiguous() for key, value in part.state().items()}, partial / f"{name}.safetensors"
        )
    rollouts.write_parquet(partial / "rollouts.parquet")
    (partial / "state.json").write_text(
        json.dumps({"iteration": iteration, "metrics": metrics, "settings": settings}), encoding="utf-8"
    )
    partial.rename(folder / f"{_PREFIX}{iteration:06d}")
    for old in sorted(folder.glob(f"{_PREFIX}*"))[:-1]:
        shutil.rmtree(old)


def load_checkpoint(
    folder: Path, *, trained: Mapping[str, Trained], settings: str
) -> tuple[int, pl.DataFrame, dict[str, float]] | None:
    """Restore the state; return the finished iterations, their rollouts and the last metrics, or None.

    Raises ConfigError for a checkpoint of other settings.
    """
    finished = sorted(folder.glob(f"{_PREFIX}*"))
    if not finished:
        return None
    newest = finished[-1]
    state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
    if state["settings"] != settings:
        raise ConfigError(
            f"{newest} was written with the settings {state['settings']}; this run has {settings}. "
            "Go on with those settings, or delete the folder to start anew."
        )
    for name, part in trained.items():
        part.restore(load_file(newest / f"{name}.safetensors"))
    return int(state["iteration"]), pl.read_parquet(newest / "rollouts.parquet"), state["metrics"]
