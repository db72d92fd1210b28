import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from rlhf.models.batches import collate, response_logits
from rlhf.models.sampling import Completion, response_logprobs, sample
from schemas.errors import ModelNotUsable, TrainingDiverged

PAD, STOP = 0, frozenset({1, 2})
VOCAB = 24
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [5, PAD, 7], [3, 4], [8, 8, 8, 8]]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    """A rotary and a learned-position model with logits far from uniform."""
    torch.manual_seed(0)
    if request.param == "llama":
        config = LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            initializer_range=0.4,
        )
        return LlamaForCausalLM(config).eval()
    wide = GPT2Config(
        vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.4,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return GPT2LMHeadModel(wide).eval()


def draw(
    model: nn.Module, *, batch_size: int = 8, temperature: float = 1.0, seed: int = 0
) -> list[Completion]:
    return sample(
        model,
        PROMPTS,
        max_new_tokens=12,
        temperature=temperature,
        stop=STOP,
        pad_id=PAD,
        batch_size=batch_size,
        generator=torch.Generator().manual_seed(seed),
    )


@torch.no_grad()
def by_hand(model: nn.Module, prompt: list[int], response: list[int], temperature: float) -> Tensor:
    """One unpadded forward pass per token; the pad id renormalised away."""
    logprobs = []
    for t, token in enumerate(response):
        logits = model(torch.tensor([prompt + response[:t]])).logits[0, -1].double() / temperature
        logits[PAD] = -torch.inf
        logprobs.append(logits.log_softmax(0)[token])
    return torch.stack(logprobs).float()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_of_sampling_and_of_scoring_are_those_by_hand(model: nn.Module, temperature: float):
    drawn = draw(model, temperature=temperature)
    responses = [completion.ids for completion in drawn]
    scored = response_logprobs(model, PROMPTS, responses, temperature=temperature, pad_id=PAD, batch_size=4)
    for prompt, completion, logprobs in zip(PROMPTS, drawn, scored, strict=True):
        expected = by_hand(model, prompt, completion.ids, temperature)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(logprobs, expected, rtol=0, atol=2e-5)


def test_what_shares_the_batch_does_not_change_what_is_drawn(model: nn.Module):
    together, alone = draw(model, batch_size=8), draw(model, batch_size=1)
    assert [completion.ids for completion in together] == [completion.ids for completion in alone]


def test_the_generator_decides_everything(model: nn.Module):
    torch.manual_seed(1)
    first = draw(model, seed=3)
    torch.manual_seed(2)
    assert draw(model, seed=3) == first
    assert draw(model, seed=4) != first


def test_the_pad_id_is_never_drawn_and_only_stop_ids_end_a_response(model: nn.Module):
    for seed in range(5):
        for completion in draw(model, temperature=3.0, seed=seed):
            assert PAD not in completion.ids
            assert not STOP & set(completion.ids[:-1])
            assert completion.finished is (completion.ids[-1] in STOP)
            assert completion.finished or len(completion.ids) == 12


def test_every_stop_id_ends_a_response(model: nn.Module):
    ends = {
        draw(model, temperature=3.0, seed=seed)[row].ids[-1]
        for seed in range(8)
        for row in range(len(PROMPTS))
    }
    assert ends >= STOP


def test_padding_on_either_side_changes_no_logit(model: nn.Module):
    prompt, response = [5, 6, 7], [9, 10, 11]

    def logits(others: list[tuple[list[int], list[int]]]) -> Tensor:
        rows = [(prompt, response), *others]
        batch = collate(
            [row[0] for row in rows], [row[1] for row in rows], pad_id=PAD, device=torch.device("cpu")
        )
        with torch.no_grad():
            return response_logits(model, batch)[:3]

    alone = logits([])
    torch.testing.assert_close(logits([([4] * 20, [5])]), alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits([([4], [5] * 20)]), alone, rtol=0, atol=1e-5)


def test_which_pad_id_fills_the_batch_changes_nothing(model: nn.Module):
    with torch.no_grad():
        filled = [
            model(
                input_ids=batch.inputs_BL,
                attention_mask=batch.attention_BL,
                position_ids=batch.positions_BL,
                logits_to_keep=3,
            ).logits[0]
            for batch in (
                collate([[5, 6], [7] * 9], [[8, 9, 10], [11]], pad_id=pad, device=torch.device("cpu"))
                for pad in (0, 20)
            )
        ]
    assert torch.equal(filled[0], filled[1])


def test_tokens_are_announced_as_they_are_drawn(model: nn.Module):
    heard: dict[int, list[int]] = {row: [] for row in range(len(PROMPTS))}
    drawn = sample(
        model,
        PROMPTS,
        max_new_tokens=5,
        temperature=1.0,
        stop=STOP,
        pad_id=PAD,
        batch_size=2,
        generator=torch.Generator().manual_seed(0),
        on_token=lambda row, token: heard[row].append(token),
    )
    assert [heard[row] for row in range(len(PROMPTS))] == [completion.ids for completion in drawn]


@pytest.mark.parametrize(("pad", "tokens", "message"), [(1, 5, "also a stop id"), (0, 60, "64 positions")])
def test_a_model_that_cannot_do_it_is_refused(model: nn.Module, pad: int, tokens: int, message: str):
    with pytest.raises(ModelNotUsable, match=message):
        sample(
            model, PROMPTS, max_new_tokens=tokens, temperature=1.0, stop=STOP, pad_id=pad, batch_size=2,
            generator=torch.Generator(),
        )  # fmt: skip


def test_a_policy_that_has_diverged_is_named_before_a_token_is_drawn(model: nn.Module):
    broken = copy.deepcopy(model)
    next(broken.parameters()).data.fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match="logits are no numbers"):
        draw(broken)
