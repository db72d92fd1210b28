"""Responses drawn by a vLLM server in place of this process, with the policy's weights as they are now.

The server is vLLM's own (`vllm serve`), started with `--logprobs-mode processed_logprobs`, so that its log-probabilities are
those of the tempered distribution, and with a weight-transfer engine; TRL's client sends the weights over NCCL. Drawing is
plain HTTP: token ids in, token ids and log-probabilities out. Its arithmetic is not the update's: set `importance_cap`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self
from urllib.error import URLError
from urllib.request import Request, urlopen

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rlhf.models.sampling import Completion
from schemas.errors import SamplerUnreachable

_PATIENCE = 600.0
"""Seconds that a response may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMSampler:
    """A `Sampler` that hands the policy's weights over and then asks for responses."""

    url: str
    model: str
    """Name under which the server serves it."""
    push: Callable[[Mapping[str, Tensor]], None]
    """Sends named weights to the server."""

    @classmethod
    def connect(cls, url: str, *, device: str) -> Self:
        """Join the server's weight-transfer group; `vllm` (extra `gpu`) has to be installed here too."""
        from trl.generation.vllm_client import VLLMClient

        client = VLLMClient(base_url=url, connection_timeout=_PATIENCE)
        client.init_communicator(device)

        def push(weights: Mapping[str, Tensor]) -> None:
            shapes = [
                (name, str(weight.dtype).removeprefix("torch."), list(weight.shape))
                for name, weight in weights.items()
            ]
            client.update_named_params(shapes, iter(weights.items()))
            client.reset_prefix_cache()  # type: ignore[no-untyped-call]

        return cls(url=client.base_url, model=client.model, push=push)

    def __call__(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        stop: frozenset[int],
        pad_id: int,
        batch_size: int,
        generator: torch.Generator,
    ) -> list[Completion]:
        """Return one response per prompt, in order; `batch_size` requests are under way at a time."""
        self.push(dict(served_weights(model)))
        # A seed per request: prompts that share one would be answered with the same random numbers.
        seeds = torch.randint(2**31, (len(prompts),), generator=generator).tolist()
        rule = {
            "model": self.model,
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            # Said in full, because a server fills in what the model's generation_config.json says.
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "logit_bias": {str(pad_id): -100.0},
            "stop_token_ids": sorted(stop),
            "ignore_eos": True,  # whether it ends a response, `stop` says
            "logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
        bodies = [
            {**rule, "prompt": list(ids), "seed": seed} for ids, seed in zip(prompts, seeds, strict=True)
        ]
        with ThreadPoolExecutor(max_workers=batch_size) as requests:
            choices = list(requests.map(self._ask, bodies))
        return [
            Completion(
                ids=choice["token_ids"],
                logprobs=choice["logprobs"]["token_logprobs"],
                finished=choice["token_ids"][-1] in stop,
            )
            for choice in choices
        ]

    def _ask(self, body: Mapping[str, object]) -> dict[str, Any]:
        request = Request(  # noqa: S310  # the recipe names the server
            f"{self.url}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urlopen(request, timeout=_PATIENCE) as answer:  # noqa: S310
                choice: dict[str, Any] = json.load(answer)["choices"][0]
        except URLError as error:
            raise SamplerUnreachable(
                f"The vLLM server at {self.url} did not draw a response: {error}. See that it runs, and that it "
                "serves the policy (ppo.vllm_url)."
            ) from error
        return choice


def served_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of the plain model by its own names, adapters added to what they adapt."""
    if not isinstance(model, PeftModel):
        yield from ((name, weight.detach()) for name, weight in model.named_parameters())
        return
    plain = model.get_base_model()
    layers: list[tuple[str, Any]] = [
        (n, layer) for n, layer in plain.named_modules() if isinstance(layer, LoraLayer)
    ]
    deltas = {
        name: layer.get_delta_weight(adapter) for name, layer in layers for adapter in layer.active_adapters
    }
    for name, weight in plain.named_parameters():
        if "lora_" in name:
            continue
        owner, _, leaf = name.rpartition(".")
        owner = owner.removesuffix(".base_layer")
        adapted = owner in deltas and leaf == "weight"
        yield f"{owner}.{leaf}", weight.detach() + deltas[owner].detach() if adapted else weight.detach()
