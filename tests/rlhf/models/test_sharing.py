"""What several models have in common is in memory once, and says what it said before."""

import pytest
import torch
from torch import nn

from rlhf.models.loading import load_tokenizer
from rlhf.models.reward import RewardModel
from rlhf.models.sampling import response_logprobs
from rlhf.models.sharing import distinct_bytes, share_frozen
from rlhf.training.actors import load_actors
from schemas.config import LoraConfig

LORA = LoraConfig(rank=2)
SEQUENCES = [[9, 8, 7, 6, 30], [5, 4, 40]]


def _layer(*, frozen: bool, value: float = 1.0) -> nn.Linear:
    layer = nn.Linear(4, 3, bias=False).requires_grad_(not frozen)
    nn.init.constant_(layer.weight, value)
    return layer


def test_equal_frozen_weights_become_one_and_nothing_else_does():
    first, same, trained, other = (
        _layer(frozen=True), _layer(frozen=True), _layer(frozen=False), _layer(frozen=True, value=2.0),
    )  # fmt: skip
    # Same sum and shape, yet not equal.
    turned = _layer(frozen=True)
    with torch.no_grad():
        turned.weight[0, 0], turned.weight[0, 1] = 0.0, 2.0
    layers = (first, same, trained, other, turned)
    assert distinct_bytes(*layers) == 5 * 48
    assert share_frozen(*layers) == 48
    assert distinct_bytes(*layers) == 4 * 48
    assert first.weight.data_ptr() == same.weight.data_ptr()
    assert trained.weight.data_ptr() != first.weight.data_ptr()
    assert share_frozen(*layers) == 0  # there is nothing left to free


def test_equal_weights_of_one_module_stay_two_and_so_does_what_takes_them_over():
    one, other = (nn.Sequential(_layer(frozen=True), _layer(frozen=True)) for _ in range(2))
    assert share_frozen(one) == 0
    assert share_frozen(one, other) == 2 * 48
    assert distinct_bytes(one, other) == 2 * 48
    assert other[0].weight.data_ptr() != other[1].weight.data_ptr()


@pytest.fixture
def adapter_reward(tiny_policy, tmp_path):
    reward = RewardModel.from_policy(tiny_policy, seed=3)
    torch.manual_seed(0)
    for _ in range(2):
        reward.add_adapter(LORA)
        with torch.no_grad():
            for weight in reward.model.parameters():
                if weight.requires_grad:
                    weight.add_(0.1 * torch.randn_like(weight))
    reward.set_normalisation(mean=[0.5, -1.0], std=[2.0, 1.0])
    reward.save(tmp_path / "reward")
    load_tokenizer(tiny_policy).save_pretrained(tmp_path / "reward")
    return tmp_path / "reward"


def test_policy_reference_critic_and_reward_model_sit_on_one_base(tiny_policy, adapter_reward):
    alone = RewardModel.load(adapter_reward)
    expected = alone.normalised_members(SEQUENCES)
    actors = load_actors(tiny_policy, adapter_reward, lora=LORA, seed=0, device="cpu", shared_trunk=True)
    modules = (actors.policy, actors.reward_model.model, actors.critic)
    added = sum(
        parameter.numel() * parameter.element_size()
        for module in modules
        for name, parameter in module.named_parameters()
        if "lora_" in name or "modules_to_save" in name or module is actors.critic
    )
    base = distinct_bytes(load_actors(tiny_policy, adapter_reward, lora=None, seed=0, device="cpu").policy)
    heads = 2 * actors.reward_model.head.weight.numel() * 4
    # All but adapters, heads and values is there once; without sharing the base would be there twice.
    assert distinct_bytes(*modules) <= base + added + heads < 2 * base
    assert torch.equal(actors.reward_model.normalised_members(SEQUENCES), expected)


def test_what_the_policy_learns_the_reward_model_does_not_see(tiny_policy, adapter_reward):
    actors = load_actors(tiny_policy, adapter_reward, lora=LORA, seed=0, device="cpu", shared_trunk=True)
    before = actors.reward_model.normalised_members(SEQUENCES)

    def policy_says():
        return response_logprobs(
            actors.policy, [[2, 9]], [[20, 21]], temperature=1.0, pad_id=0, batch_size=1
        )[0]

    said = policy_says()
    with torch.no_grad():
        for parameter in actors.policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    assert not torch.equal(policy_says(), said)
    assert torch.equal(actors.reward_model.normalised_members(SEQUENCES), before)


def test_without_adapters_each_model_keeps_its_own_weights(tiny_policy, adapter_reward):
    actors = load_actors(tiny_policy, adapter_reward, lora=None, seed=0, device="cpu")
    assert share_frozen(actors.policy) == 0
    own = {parameter.data_ptr() for parameter in actors.policy.parameters()}
    assert not own & {parameter.data_ptr() for parameter in actors.frozen_reference.parameters()}
