"""A key-value cache that is written in place: copying all of it for each token costs more than the model does.

Shapes: B sequences, H heads, S cached positions, Q new positions, D head width.
"""

from typing import Self

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_ROOM = 64
"""Positions that are added when there is no room left."""


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer as the filled part of buffers that have room for more."""

    _buffers: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, layer: DynamicLayer) -> Self:
        """Take over what a plain layer holds."""
        roomy = cls()
        assert layer.keys is not None
        assert layer.values is not None
        roomy.update(layer.keys, layer.values)
        return roomy

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append the new positions (B, H, Q, D) and return all (B, H, S + Q, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        total = held + key_states.shape[2]
        if self._buffers is None or self._buffers[0].shape[2] < total:
            bigger = _buffer(key_states, total + _ROOM), _buffer(value_states, total + _ROOM)
            if self.keys is not None and self.values is not None and held:
                bigger[0][:, :, :held], bigger[1][:, :, :held] = self.keys, self.values
            self._buffers = bigger
        keys_BHSD, values_BHSD = self._buffers
        keys_BHSD[:, :, held:total] = key_states
        values_BHSD[:, :, held:total] = value_states
        self.keys, self.values = keys_BHSD[:, :, :total], values_BHSD[:, :, :total]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these sequences only."""
        assert self._buffers is not None  # it is filled when it is made
        held = self.get_seq_length()
        keys_BHSD, values_BHSD = (buffer.index_select(0, indices) for buffer in self._buffers)
        self._buffers = keys_BHSD, values_BHSD
        self.keys, self.values = keys_BHSD[:, :, :held], values_BHSD[:, :, :held]


def with_room(cache: Cache) -> None:
    """Turn the plain layers of a filled cache into roomy ones; sliding and other kinds stay as they are."""
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.get_seq_length():
            cache.layers[index] = RoomyLayer.of(layer)


def _buffer(states_BHQD: Tensor, size: int) -> Tensor:
    batch, heads, _, width = states_BHQD.shape
    # CPUs attend in fp32: kept so, the cache is not converted anew for each token.
    dtype = torch.float32 if states_BHQD.device.type == "cpu" else states_BHQD.dtype
    return torch.empty(batch, heads, size, width, dtype=dtype, device=states_BHQD.device)
