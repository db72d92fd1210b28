import torch

from rlhf.models.loading import load_policy
from rlhf.models.recompute import allow_recomputing, recomputing

IDS = torch.tensor([[9, 8, 7, 6, 30, 31]])


def _forwards(model):
    """Count the forward passes of the first attention layer from here on."""
    calls = []
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_layers_are_computed_twice_inside_the_block_and_once_outside(tiny_policy):
    model, _ = load_policy(tiny_policy)
    allow_recomputing(model)
    calls = _forwards(model)
    model(IDS).logits.sum().backward()
    assert len(calls) == 1
    with recomputing(model):
        model(IDS, use_cache=False).logits.sum().backward()
        assert not model.model.layers[0].self_attn.training  # no dropout
    assert len(calls) == 3
    assert not model.model.layers[0].training
