"""Mistakes with log-probabilities, ratio and KL that PPO implementations have made; each test is named for one."""

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from rlhf.algorithms.logprobs import token_logprobs
from rlhf.models.loading import attach_lora, load_policy, merge, save_model
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


def test_a_log_probability_is_that_of_its_own_token_and_not_of_the_next():
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    found = token_logprobs(logits.flatten(0, 1), tokens.flatten(), temperature=1.0, pad_id=0).view(2, 3)
    for b in range(2):
        for t in range(3):
            weights = [math.exp(logits[b, t, v].item()) for v in range(1, 7)]
            expected = math.log(weights[int(tokens[b, t]) - 1] / sum(weights))
            assert found[b, t].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_the_temperature_of_sampling_is_that_of_scoring(folders: tuple[Path, Path], temperature: float):
    config = CONFIG.model_copy(update={"temperature": temperature})
    rollout, _ = collect(_actors(folders), PROMPTS, config, precision=FP32, seed=0, iteration=0)
    assert (
        rollout.old_logprobs_BT - rollout.sampler_logprobs_BT
    ).abs().max() < 1e-4  # scored at temperature 1 it is some tenths


def test_sampled_tokens_are_as_surprising_as_the_scored_distribution_says(folders: tuple[Path, Path]):
    config = CONFIG.model_copy(
        update={"temperature": 0.8, "batch_size": 256, "minibatch_size": 256, "max_new_tokens": 3}
    )
    rollout, _ = collect(_actors(folders), PROMPTS * 32, config, precision=FP32, seed=0, iteration=0)
    excess = (-rollout.old_logprobs_BT - rollout.entropy_BT)[rollout.mask_BT]
    # On average 0, unless something was cut off the distribution that the log-probabilities do not know of.
    assert excess.mean().abs() < 3 * excess.std() / len(excess) ** 0.5


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


def test_dropout_is_off_while_scoring_that_of_adapters_too(folders: tuple[Path, Path]):
    actors = _actors(folders, LORA)
    with torch.no_grad():
        for name, parameter in actors.policy.named_parameters():
            if "lora_" in name:
                parameter.add_(0.3)  # adapters that do something, so that their dropout would show
    first = _logprobs(actors.policy)
    assert torch.equal(_logprobs(actors.policy), first)
    assert not any(module.training for module in (*actors.policy.modules(), *actors.critic.modules()))


def test_the_reference_of_an_sft_adapter_keeps_the_adapter(folders: tuple[Path, Path], tmp_path: Path):
    base, tokenizer = load_policy(folders[0])
    plain = _logprobs(base)
    adapted = attach_lora(base, LORA, "CAUSAL_LM")
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.add_(0.3)
    adapted.eval()
    tuned = _logprobs(adapted)
    save_model(merge(adapted), tokenizer, tmp_path)
    actors = load_actors(tmp_path, folders[1], lora=LORA, seed=0, device="cpu")
    with actors.reference() as reference:
        found = _logprobs(reference)
    torch.testing.assert_close(found, tuned, rtol=0, atol=1e-4)
    assert (found - plain).abs().max() > 0.1  # and it is not the base model
    rollout, _ = collect(actors, PROMPTS, CONFIG, precision=FP32, seed=0, iteration=0)
    assert torch.equal(rollout.old_logprobs_BT, rollout.ref_logprobs_BT)


def test_disabling_the_adapters_gives_back_the_reference_after_training(folders: tuple[Path, Path]):
    actors = _actors(folders, LORA)
    with actors.reference() as reference:
        before = _logprobs(reference)
    with torch.no_grad():
        for parameter in actors.policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2)
    with actors.reference() as reference:
        assert torch.equal(_logprobs(reference), before)
    assert (_logprobs(actors.policy) - before).abs().max() > 0.01
    # Trained biases would stay on when adapters are off.
    with pytest.raises(ValidationError, match="bias"):
        LoraConfig.model_validate({"bias": "all"})


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


def test_kl_is_neither_clamped_nor_made_positive_on_its_way_to_the_metrics(folders: tuple[Path, Path]):
    actors = _actors(folders)
    with torch.no_grad():
        actors.policy.get_input_embeddings().weight.mul_(1.05)
    rollout, _ = collect(actors, PROMPTS, CONFIG, precision=FP32, seed=0, iteration=0)
    experience = learn_from(rollout, CONFIG, kl_coef=0.1)
    difference = (rollout.old_logprobs_BT - rollout.ref_logprobs_BT)[rollout.mask_BT]
    assert difference.min() < 0
    metrics = describe(experience)
    assert metrics["kl"] == pytest.approx(difference.sum().item() / 8, abs=1e-5)
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
