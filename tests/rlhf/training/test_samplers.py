"""What any sampler has to keep, and that both do: the built-in one, and a client of vLLM's protocol.

The server below is a real HTTP server that speaks the part of vLLM's protocol that is used, with the built-in sampler
behind it. No vLLM and no NCCL took part: how a real server's weights are replaced is TRL's client's work, untested here.
"""

import copy
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from rlhf.models.loading import attach_lora
from rlhf.models.sampling import Completion, Sampler, response_logprobs, sample
from rlhf.training.vllm import VLLMSampler, served_weights
from schemas.config import LoraConfig
from schemas.errors import SamplerUnreachable

PAD, STOP, VOCAB = 0, frozenset({1, 2}), 24
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [5, PAD, 7], [3, 4], [8], [8]]


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=64, initializer_range=0.4,
        )
    ).eval()  # fmt: skip


class Served(ThreadingHTTPServer):
    """Answers `/v1/completions` from a copy of a model, which `push` replaces the weights of."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.model = copy.deepcopy(model)
        self.seen: list[dict[str, object]] = []
        self.lock = Lock()

    def push(self, weights: dict[str, Tensor]) -> None:
        """Replace all of them, as a weight transfer does."""
        own = dict(self.model.named_parameters())
        assert own.keys() == weights.keys()
        with torch.no_grad():
            for name, weight in weights.items():
                own[name].copy_(weight)


class Answer(BaseHTTPRequestHandler):
    """One request, one response of the model."""

    server: Served

    def do_POST(self) -> None:
        """Draw with the request's own seed and by its own rule."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/completions"
        (pad,) = (int(token) for token, bias in body["logit_bias"].items() if bias == -100)
        with self.server.lock:
            self.server.seen.append(body)
            (drawn,) = sample(
                self.server.model, [body["prompt"]], max_new_tokens=body["max_tokens"],
                temperature=body["temperature"], stop=frozenset(body["stop_token_ids"]), pad_id=pad,
                batch_size=1, generator=torch.Generator().manual_seed(body["seed"]),
            )  # fmt: skip
        choice = {
            "token_ids": drawn.ids,
            "finish_reason": "stop" if drawn.finished else "length",
            "logprobs": {
                "tokens": [f"token_id:{id_}" for id_ in drawn.ids],
                "token_logprobs": drawn.logprobs,
            },
        }
        content = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(model: LlamaForCausalLM) -> Iterator[Served]:
    with Served(model) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=["built in", "vllm"])
def sampler(request: pytest.FixtureRequest, served: Served) -> Sampler:
    return sample if request.param == "built in" else client(served)


def client(served: Served) -> VLLMSampler:
    return VLLMSampler(url=f"http://127.0.0.1:{served.server_port}", model="policy", push=served.push)


def draw(sampler: Sampler, model: nn.Module, *, seed: int = 0, temperature: float = 1.5) -> list[Completion]:
    return sampler(
        model, PROMPTS, max_new_tokens=12, temperature=temperature, stop=STOP, pad_id=PAD, batch_size=3,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def scored(model: nn.Module, drawn: list[Completion], temperature: float = 1.5) -> list[Tensor]:
    responses = [completion.ids for completion in drawn]
    return response_logprobs(model, PROMPTS, responses, temperature=temperature, pad_id=PAD, batch_size=2)


def agrees(drawn: list[Completion], expected: list[Tensor]) -> None:
    for completion, logprobs in zip(drawn, expected, strict=True):
        torch.testing.assert_close(torch.tensor(completion.logprobs), logprobs, rtol=0, atol=2e-5)


def test_there_is_one_response_per_prompt_in_order_with_the_policys_log_probabilities(
    sampler: Sampler, model: LlamaForCausalLM
):
    drawn = draw(sampler, model)
    assert len(drawn) == len(PROMPTS)
    agrees(drawn, scored(model, drawn))  # those of another prompt's response would differ


def test_stop_ids_end_a_response_and_belong_to_it_and_the_pad_id_never_occurs(
    sampler: Sampler, model: LlamaForCausalLM
):
    drawn = [
        completion for seed in range(3) for completion in draw(sampler, model, seed=seed, temperature=3.0)
    ]
    assert {completion.finished for completion in drawn} == {True, False}
    for completion in drawn:
        assert 1 <= len(completion.ids) == len(completion.logprobs) <= 12
        assert completion.finished is (completion.ids[-1] in STOP)
        assert completion.finished or len(completion.ids) == 12
        assert not STOP & set(completion.ids[:-1])
        assert PAD not in completion.ids


def test_the_generator_decides_and_equal_prompts_are_answered_apart(
    sampler: Sampler, model: LlamaForCausalLM
):
    first = draw(sampler, model)
    assert draw(sampler, model) == first
    assert draw(sampler, model, seed=1) != first
    assert len({tuple(first[row].ids) for row in (1, 5, 6)}) == 3  # the same prompt three times


def test_it_draws_from_the_policy_as_it_is_now_and_leaves_it_alone(sampler: Sampler, model: LlamaForCausalLM):
    before = draw(sampler, model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    weights = copy.deepcopy(model.state_dict())
    after = draw(sampler, model)
    agrees(after, scored(model, after))
    assert after != before
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_adapters_are_served_as_if_they_were_merged(sampler: Sampler, model: LlamaForCausalLM):
    adapted = attach_lora(model, LoraConfig(rank=2, alpha=4.0), "CAUSAL_LM").eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    drawn = draw(sampler, adapted)
    agrees(drawn, scored(adapted, drawn))
    merged = dict(copy.deepcopy(adapted).merge_and_unload().named_parameters())
    weights = dict(served_weights(adapted))
    assert merged.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, merged[name], rtol=0, atol=1e-6)


def test_the_server_is_told_all_that_it_would_otherwise_take_from_the_models_own_configuration(
    served: Served, model: LlamaForCausalLM
):
    draw(client(served), model)
    assert len({body["seed"] for body in served.seen}) == len(PROMPTS)
    plain = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": True}
    assert all(body.items() >= plain.items() for body in served.seen)


def test_a_server_that_is_not_there_is_one_clear_error(model: LlamaForCausalLM):
    gone = VLLMSampler(url="http://127.0.0.1:9", model="policy", push=lambda _: None)
    with pytest.raises(SamplerUnreachable, match="did not draw a response"):
        draw(gone, model)
