"""Mistakes with tokens, stop ids and padding that PPO implementations have made; each test is named for one."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from rlhf.models.batches import ResponseBatch, collate, score_tokens
from rlhf.models.critic import Critic
from rlhf.models.precision import Precision
from rlhf.models.reward import RewardModel
from rlhf.models.sampling import Completion
from rlhf.training.actors import Actors, load_actors
from rlhf.training.experience import learn_from
from rlhf.training.rollout import collect
from schemas.config import PPOConfig

FP32 = Precision(threads=1, dtype="fp32")
CPU = torch.device("cpu")
PAD, EOS = 0, 1
PROMPTS = [[{"role": "user", "content": "hi " * number}] for number in range(1, 5)]
CONFIG = PPOConfig(batch_size=4, minibatch_size=4, epochs=1, max_new_tokens=6)


def _sized(kind: str) -> dict[str, int | float]:
    if kind == "gpt2":
        return {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128, "initializer_range": 0.4}
    return {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 128, "initializer_range": 0.4,
    }  # fmt: skip


@pytest.fixture(params=["llama", "gpt2"])
def policy(request: pytest.FixtureRequest) -> nn.Module:
    """Rotary positions do not notice a shift; learned ones do."""
    torch.manual_seed(0)
    if request.param == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=24, **_sized("gpt2"))).eval()
    return LlamaForCausalLM(LlamaConfig(vocab_size=24, **_sized("llama"))).eval()


@pytest.fixture(params=["llama", "gpt2"])
def scorer(request: pytest.FixtureRequest) -> RewardModel:
    torch.manual_seed(0)
    options = {"vocab_size": 24, "num_labels": 1, "pad_token_id": PAD, **_sized(request.param)}
    if request.param == "gpt2":
        return RewardModel(GPT2ForSequenceClassification(GPT2Config(**options)).eval())
    return RewardModel(LlamaForSequenceClassification(LlamaConfig(**options)).eval())


def _padded(left: int, right: int, pad_id: int = PAD) -> ResponseBatch:
    """Lay out one row beside another that pads it by so many cells on either side."""
    return collate(
        [[5, 6, 7], [4] * (3 + left)], [[9, EOS, 11], [8] * (3 + right)], pad_id=pad_id, device=CPU
    )


@pytest.mark.parametrize(("left", "right"), [(7, 0), (64, 0), (0, 7), (0, 64), (7, 64)])
def test_padding_on_either_side_changes_no_value_nor_score(scorer: RewardModel, left: int, right: int):
    critic = Critic(scorer.model, mean=0.3, std=2.0)
    with torch.no_grad():
        alone, padded = critic(_padded(0, 0))[0], critic(_padded(left, right))[0, :3]
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-5)
    neighbours = [[5, 6, 7, 9, EOS, 11], [4] * (6 + left + right)]
    expected = scorer.raw_scores(neighbours[:1])
    torch.testing.assert_close(scorer.raw_scores(neighbours)[:1], expected, rtol=0, atol=1e-5)


def test_a_pad_id_that_is_a_real_token_of_the_prompt_is_still_read(policy: nn.Module):
    prompt, response = [20, 6, 20, 7], [9, 10]
    batch = collate([prompt, [4] * 9], [response, [8]], pad_id=20, device=CPU)
    with torch.no_grad():
        found = score_tokens(policy, batch, temperature=1.0, pad_id=20)[0, :2]
        logits = policy(torch.tensor([prompt + response])).logits[0, 3:5]
    logits[:, 20] = -torch.inf
    expected = logits.log_softmax(1)[[0, 1], response]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.fixture
def actors(folders: tuple[Path, Path]) -> Actors:
    return load_actors(*folders, lora=None, seed=0, device="cpu")


def _drawing(actors: Actors, responses: list[list[int]], *, finished: list[bool]) -> Actors:
    """Let the sampler draw these responses."""
    drawn = [
        Completion(ids=ids, logprobs=[-1.0] * len(ids), finished=end)
        for ids, end in zip(responses, finished, strict=True)
    ]
    return dataclasses.replace(actors, sampler=lambda *_, **__: drawn)


def _read_by_the_reward_model(actors: Actors, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    read: list[list[int]] = []
    score = actors.reward_model.member_scores

    def remember(ids: list[list[int]], **options: int) -> Tensor:
        read.extend(ids)
        return score(ids, **options)

    monkeypatch.setattr(actors.reward_model, "member_scores", remember)
    return read


def test_cut_responses_are_not_scored_as_if_finished(actors: Actors, monkeypatch: pytest.MonkeyPatch):
    responses = [[20], [21], [22], [23]]
    actors = _drawing(actors, responses, finished=[False] * 4)
    read = _read_by_the_reward_model(actors, monkeypatch)
    rollout, _ = collect(actors, PROMPTS, CONFIG, precision=FP32, seed=0, iteration=0)
    assert [ids[-1] for ids in read] == [20, 21, 22, 23]
    found = learn_from(
        rollout, CONFIG.model_copy(update={"missing_eos_penalty": 3.0}), kl_coef=0.1
    ).rewards_BT.sum(1)
    kept = learn_from(
        rollout, CONFIG.model_copy(update={"missing_eos_penalty": 0.0}), kl_coef=0.1
    ).rewards_BT.sum(1)
    torch.testing.assert_close(kept - found, torch.full((4,), 3.0), rtol=0, atol=1e-5)


def test_every_stop_id_counts_as_an_end_and_not_only_eos(folders: tuple[Path, Path], actors: Actors):
    config = CONFIG.model_copy(update={"batch_size": 64, "minibatch_size": 64, "temperature": 3.0})
    rollout, _ = collect(actors, PROMPTS * 16, config, precision=FP32, seed=0, iteration=0)
    assert len(actors.stop) > 2
    last = [ids[-1] for ids in rollout.responses]
    assert any(token in actors.stop and token != EOS for token in last)
    assert rollout.finished_B.tolist() == [token in actors.stop for token in last]
    assert all(not actors.stop & set(ids[:-1]) for ids in rollout.responses)
