"""Activations that are not kept: what the backward pass needs of a layer is computed again (Chen et al. 2016)."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def allow_recomputing(model: PreTrainedModel) -> None:
    """Prepare a model for `recomputing`, which alone switches it on."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


@contextmanager
def recomputing(*models: nn.Module) -> Iterator[None]:
    """Keep no activations of the layers of these models, as long as the block lasts.

    transformers does so for a layer in training mode, which loses its key-value cache by it: sampling has to stay outside.
    What lies inside the layers stays in evaluation mode, so no dropout awakes.
    """
    layers = [
        module
        for model in models
        for module in model.modules()
        if isinstance(module, GradientCheckpointingLayer)
    ]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
