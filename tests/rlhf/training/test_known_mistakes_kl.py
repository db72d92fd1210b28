"""Mistakes with log-probabilities, ratio and KL that PPO implementations have made; each test is named for one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlhf.models.loading import attach_lora, load_policy, merge
from rlhf.models.precision import Precision, autocast
from rlhf.models.sampling import response_logprobs
from rlhf.training.actors import Actors, load_actors
from rlhf.training.experience import describe, learn_from
from rlhf.training.rollout import collect
from schemas.config import LoraConfig, PPOConfig

FP32 = Precision(threads=1, dtype="fp32")
LORA = LoraConfig(rank=2, alpha=4.0, dropout=0.3)
PROMPTS = [[{"role": "user", "content": "hi " * number}] for number in range(1, 9)]
CONFIG = PPOConfig(batch_size=8, minibatch_size=4, epochs=1, max_new_tokens=6)
IDS = [[2, 9, 30], [2, 9]]
RESPONSES = [[20, 21, 22], [40, 41, 42, 43]]


def _actors(folders: tuple[Path, Path], lora: LoraConfig | None = None) -> Actors:
    return load_actors(*folders, lora=lora, seed=0, device="cpu")


def _logprobs(model: torch.nn.Module) -> Tensor:
    return torch.cat(response_logprobs(model, IDS, RESPONSES, temperature=1.0, pad_id=0, batch_size=2))


def test_two_passes_over_a_rollout_give_the_same_bits(folders: tuple[Path, Path]):
    for precision in (FP32, Precision(threads=1, dtype="bf16")):
        actors = _actors(folders, LORA)
        with torch.no_grad():
            for name, parameter in actors.policy.named_parameters():
                if "lora_" in name:
                    parameter.add_(0.1)  # new adapters do nothing, and their dropout would not show
        rollout, plan = collect(actors, PROMPTS, CONFIG, precision=precision, seed=0, iteration=0)
        again, _ = collect(actors, PROMPTS, CONFIG, precision=precision, seed=0, iteration=0)
        assert len(plan[0]) == 2
        assert torch.equal(rollout.old_logprobs_BT, again.old_logprobs_BT)


def test_adapters_are_merged_without_loss(folders: tuple[Path, Path]):
    model, _ = load_policy(folders[0])
    adapted = attach_lora(model, LORA, "CAUSAL_LM")
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1)
    adapted.eval()
    before = _logprobs(adapted)
    torch.testing.assert_close(_logprobs(merge(adapted)), before, rtol=0, atol=1e-4)


def test_the_second_estimate_of_the_kl_is_positive_where_the_first_is_not(folders: tuple[Path, Path]):
    actors = _actors(folders)
    with torch.no_grad():
        actors.policy.get_input_embeddings().weight.mul_(1.05)
    rollout, _ = collect(actors, PROMPTS, CONFIG, precision=FP32, seed=0, iteration=0)
    experience = learn_from(rollout, CONFIG, kl_coef=0.1)
    difference = (rollout.old_logprobs_BT - rollout.ref_logprobs_BT)[rollout.mask_BT]
    assert difference.min() < 0
    metrics = describe(experience)
    assert metrics["kl_k3"] == pytest.approx(
        (torch.exp(-difference) - 1 + difference).sum().item() / 8, abs=1e-5
    )
    assert metrics["kl_k3"] > 0


def test_the_value_head_is_fp32_inside_autocast(folders: tuple[Path, Path]):
    shared = load_actors(*folders, lora=None, seed=0, device="cpu", shared_trunk=True).critic
    with torch.no_grad():
        shared.score.weight.normal_(generator=torch.Generator().manual_seed(0))
    for head in (_actors(folders).critic.model.score, shared.score):
        hidden = torch.randn(64, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
        with torch.no_grad(), autocast(Precision(threads=1, dtype="bf16")):
            found = head(hidden)
        assert found.dtype == torch.float32
        expected = hidden.double() @ head.weight.double().T
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
