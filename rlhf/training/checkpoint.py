"""The state of a training loop on disk: safetensors, Parquet and JSON, complete or absent, never more than one.

A checkpoint is written beside its place and renamed into it, so that a process killed at any moment leaves
the old one or the new one. There is no random state to save: generators are derived from seed and iteration.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from rlhf.training.held_out import Best
from rlhf.training.step import StepMetrics
from rlhf.training.trained import Trained
from schemas.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

_PREFIX = "iteration-"
_PARTIAL = "partial-"
_AGREEMENT, _RECENT, _WEIGHTS = "agreement", "recent", "weights."


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands after some iterations, besides the weights that it trains."""

    kl_coef: float
    """Of the next iteration."""
    curve: tuple[StepMetrics, ...] = ()
    """What was measured, one entry per finished iteration."""
    rollouts: pl.DataFrame | None = None
    """Every response that was sampled so far (table `rollouts`)."""
    stopped: bool = False
    """True once an alarm has ended the run."""
    best: Best | None = None
    """The policy so far that agreed best with held-out preferences, where there are some."""


def save_checkpoint(
    folder: Path, *, progress: Progress, trained: Mapping[str, Trained], settings: str
) -> None:
    """Replace the checkpoint in the folder by one of this state."""
    iteration = len(progress.curve)
    for leftover in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(leftover)
    partial = folder / f"{_PARTIAL}{iteration}"
    partial.mkdir(parents=True)
    for name, part in trained.items():
        tensors = {key: tensor.contiguous() for key, tensor in part.state().items()}
        save_file(tensors, partial / f"{name}.safetensors")
    if progress.rollouts is not None:
        progress.rollouts.write_parquet(partial / "rollouts.parquet")
    if progress.best is not None:
        weights = {_WEIGHTS + name: tensor.contiguous() for name, tensor in progress.best.weights.items()}
        looks = {_AGREEMENT: progress.best.agreement_N, _RECENT: torch.stack(progress.best.recent)}
        save_file(looks | weights, partial / "best.safetensors")
    state = {
        "settings": settings,
        "kl_coef": progress.kl_coef,
        "curve": [dataclasses.asdict(step) for step in progress.curve],
        "stopped": progress.stopped,
        "best_iteration": progress.best.iteration if progress.best else None,
    }
    (partial / "state.json").write_text(json.dumps(state), encoding="utf-8")
    partial.rename(folder / f"{_PREFIX}{iteration:06d}")
    for old in sorted(folder.glob(f"{_PREFIX}*"))[:-1]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, *, trained: Mapping[str, Trained], settings: str) -> Progress | None:
    """Restore what is trained and return how far it had come, or None where there is no checkpoint.

    Raises ConfigError for a checkpoint of other settings.
    """
    import polars as pl  # as in `experience.table`

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
    return Progress(
        kl_coef=state["kl_coef"],
        curve=tuple(StepMetrics(**step) for step in state["curve"]),
        rollouts=pl.read_parquet(newest / "rollouts.parquet"),
        stopped=state["stopped"],
        best=None if state["best_iteration"] is None else _best(newest, state["best_iteration"]),
    )


def _best(checkpoint: Path, iteration: int) -> Best:
    tensors = load_file(checkpoint / "best.safetensors")
    weights = {
        name.removeprefix(_WEIGHTS): tensor for name, tensor in tensors.items() if name.startswith(_WEIGHTS)
    }
    return Best(iteration, tensors[_AGREEMENT], weights, tensors[_RECENT].unbind())
