"""Log-probabilities of policy and reference, and what is sampled, against a loop without padding, batch or cache."""

from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from rlhf.conformance import truth
from rlhf.conformance.backend import Backend, Lora, Models, Refused, Start
from rlhf.conformance.models import QUESTIONS, STOP

PROMPTS = [[2, 9, 30], [2, 9, 31, 32, 33, 34, 35, 36], [40], [60, 61]]
RESPONSES = [[20, 21, 22], [41, 42, 43, 44, 45], [50, 51], [62]]


def _expected(backend: Backend, folder: Path, models: Models, temperature: float = 1.0) -> list[Tensor]:
    model, never = truth.policy(folder), _never(backend, models)
    return [
        truth.logprobs(model, prompt, response, temperature=temperature, never=never)[0]
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]


def _never(backend: Backend, models: Models) -> int | None:
    return None if backend.draws_pad else models.tokenizer.pad_token_id


def _assert_close(found: list[Tensor], expected: list[Tensor], atol: float = 1e-4) -> None:
    torch.testing.assert_close(torch.cat(found), torch.cat(expected), rtol=0, atol=atol)


@pytest.mark.item(3, 16)
def test_a_log_probability_is_that_of_its_own_token(backend: Backend, models: Models, online: str) -> None:
    """In a batch of ragged prompts and responses."""
    found = backend.logprobs(online, Start(folder=models.policy), PROMPTS, RESPONSES)[0]
    _assert_close(found, _expected(backend, models.policy, models))


@pytest.mark.item(4)
def test_left_padding_shifts_no_learned_position(backend: Backend, models: Models, online: str) -> None:
    """GPT-2 knows where a token stands by its place in the row, unless it is told."""
    found = backend.logprobs(online, Start(folder=models.learned_positions), PROMPTS, RESPONSES)[0]
    _assert_close(found, _expected(backend, models.learned_positions, models))


@pytest.mark.item(17)
@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_scoring_uses_the_temperature_of_sampling(
    backend: Backend, models: Models, online: str, temperature: float
) -> None:
    """The policy that is trained is the one that samples."""
    start = Start(folder=models.policy)
    found = backend.logprobs(online, start, PROMPTS, RESPONSES, temperature=temperature)[0]
    _assert_close(found, _expected(backend, models.policy, models, temperature))


@pytest.mark.item(17, 18)
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_sampled_tokens_are_as_surprising_as_the_scored_distribution_says(
    backend: Backend, models: Models, online: str, temperature: float
) -> None:
    """On average; not if top-k, top-p or a penalty that the model's files recommend cuts something off."""
    start = Start(folder=models.policy)
    sampled = backend.sample(online, models, start, QUESTIONS * 16, max_new_tokens=3, temperature=temperature)
    model, never = truth.policy(models.policy), _never(backend, models)
    excess = []
    for prompt, response in zip(sampled.prompts, sampled.responses, strict=True):
        chosen, entropy = truth.logprobs(model, prompt, response, temperature=temperature, never=never)
        excess.append(-chosen - entropy)
    excess_R = torch.cat(excess)
    assert excess_R.mean().abs() < 3 * excess_R.std() / len(excess_R) ** 0.5


@pytest.mark.item(19)
def test_the_first_ratio_is_one(backend: Backend, models: Models, online: str) -> None:
    """The log-probabilities that it is measured from are those of the policy that sampled."""
    start = Start(folder=models.policy)
    sampled = backend.sample(online, models, start, QUESTIONS, max_new_tokens=6)
    assert sampled.old_logprobs is not None
    model, never = truth.policy(start.folder), _never(backend, models)
    expected = [
        float(truth.logprobs(model, prompt, response, never=never)[0].sum())
        for prompt, response in zip(sampled.prompts, sampled.responses, strict=True)
    ]
    assert sampled.old_logprobs == pytest.approx(expected, abs=1e-4)


@pytest.mark.item(13)
def test_every_stop_id_ends_a_response(backend: Backend, models: Models, online: str) -> None:
    """Chat models have several; the tokenizer's EOS is one of them."""
    start = Start(folder=models.policy)
    sampled = backend.sample(online, models, start, QUESTIONS * 2, max_new_tokens=8)
    stop = {models.tokenizer.eos_token_id, *STOP}
    assert all(not stop & set(response[:-1]) for response in sampled.responses)
    assert any(response[-1] in STOP for response in sampled.responses)


@pytest.mark.item(20)
def test_dropout_is_off_while_scoring(backend: Backend, models: Models, online: str) -> None:
    """That of adapters too: two passes of the update over the same tokens give the same bits."""
    start = Start(folder=models.policy, lora=Lora(dropout=0.1))
    first, second = backend.logprobs(online, start, PROMPTS, RESPONSES, move=0.3, passes=2)
    assert torch.equal(torch.cat(first), torch.cat(second))


@pytest.mark.item(21)
def test_the_reference_of_an_adapter_keeps_the_adapter(
    backend: Backend, models: Models, online: str, tmp_path: Path
) -> None:
    """Not the base model: the policy began at a fine-tuned adapter."""
    start = Start(folder=models.policy, adapter=adapter(models, tmp_path))
    policy = backend.logprobs(online, start, PROMPTS, RESPONSES)[0]
    reference = backend.logprobs(online, start, PROMPTS, RESPONSES, of="reference")[0]
    _assert_close(reference, policy, atol=1e-5)
    assert (torch.cat(policy) - torch.cat(_expected(backend, models.policy, models))).abs().max() > 0.1


@pytest.mark.item(21)
def test_the_reference_of_a_model_in_memory_is_that_model(
    backend: Backend, models: Models, online: str
) -> None:
    """Not the files that it once came from."""
    policy = backend.logprobs(online, in_memory(models), PROMPTS, RESPONSES)[0]
    reference = backend.logprobs(online, in_memory(models), PROMPTS, RESPONSES, of="reference")[0]
    _assert_close(reference, policy, atol=1e-5)


@pytest.mark.item(22)
@pytest.mark.parametrize("bias", ["none", "all"])
def test_the_reference_does_not_move_with_the_policy(
    backend: Backend, models: Models, online: str, bias: str
) -> None:
    """Switching adapters off leaves biases that were trained as they are; refusing them is as good."""
    start = Start(folder=models.policy, lora=Lora(bias=bias))  # type: ignore[arg-type]
    try:
        before = backend.logprobs(online, start, PROMPTS, RESPONSES, of="reference")[0]
    except Refused:
        return
    after = backend.logprobs(online, start, PROMPTS, RESPONSES, of="reference", move=0.2)[0]
    _assert_close(after, before, atol=1e-6)


@pytest.mark.item(24)
def test_the_kl_that_is_logged_is_not_clamped(backend: Backend, models: Models, online: str) -> None:
    """Single tokens may be negative; cutting them off makes it several times too large."""
    sampled = backend.sample(
        online, models, Start(folder=models.policy), QUESTIONS, max_new_tokens=6, move=0.02
    )
    if sampled.kl is None:
        pytest.skip("not offered: k1 is not logged")
    model, reference = truth.policy(models.policy), truth.policy(models.policy)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02)
    never = _never(backend, models)
    difference = torch.cat(
        [
            truth.logprobs(model, *row, never=never)[0] - truth.logprobs(reference, *row, never=never)[0]
            for row in zip(sampled.prompts, sampled.responses, strict=True)
        ]
    )
    assert difference.min() < -1e-2
    assert sampled.kl == pytest.approx(float(difference.mean()), abs=1e-4)


def adapter(models: Models, folder: Path) -> Path:
    """Save an adapter that has learnt something."""
    base = AutoModelForCausalLM.from_pretrained(models.policy, dtype=torch.float32)
    adapted = peft.get_peft_model(
        base, peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(str(folder))
    return folder


def in_memory(models: Models) -> Start:
    """Return a policy that has learnt something since it was loaded."""
    model = AutoModelForCausalLM.from_pretrained(models.policy, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return Start(folder=models.policy, model=model)
