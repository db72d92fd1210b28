"""The cache that is written in place holds what the plain one holds."""

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from rlhf.models.cache import RoomyLayer, with_room


def _states(length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, 3, 2, length, 4, generator=generator)
    return keys, values


def test_it_holds_what_the_plain_cache_holds_through_growth_and_selection():
    plain, roomy = DynamicCache(), DynamicCache()
    for cache in (plain, roomy):
        cache.update(*_states(5, seed=0), 0)
    with_room(roomy)
    assert type(roomy.layers[0]) is RoomyLayer
    rows = torch.arange(3)
    for step in range(1, 150):  # past the room of two buffers
        if step in (40, 90):
            keep = torch.tensor([0, 2]) if step == 40 else torch.tensor([1])
            rows = rows[keep]
            for cache in (plain, roomy):
                cache.batch_select_indices(keep)
        keys, values = (state[rows] for state in _states(1, seed=step))
        expected, found = plain.update(keys, values, 0), roomy.update(keys, values, 0)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
        assert roomy.get_seq_length() == plain.get_seq_length() == 5 + step


def test_keys_are_kept_in_fp32_on_a_cpu_and_an_empty_cache_is_left_alone():
    cache = DynamicCache()
    with_room(cache)
    assert cache.layers == []
    cache.update(*(state.bfloat16() for state in _states(2, seed=0)), 0)
    assert type(cache.layers[0]) is DynamicLayer
    with_room(cache)
    assert cache.layers[0].keys.dtype == torch.float32
