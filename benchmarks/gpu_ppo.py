"""PPO's speed on a bare machine, which has torch, transformers, peft, accelerate and a clone of this project.

    PYTHONPATH=. python benchmarks/gpu_ppo.py --size 0.5b --size 1.5b --size 8b

Models have random weights in public shapes (Qwen2.5 0.5B and 1.5B, Llama 3.1 8B), so nothing is downloaded;
every response has the same length, because no id ends it. Values come from a head on the policy's trunk.
0.5B is trained in full against a frozen copy; 1.5B and 8B through LoRA on bf16 weights, with the adapters off
as the reference. The reward model has the shape of 0.5B. `--device cpu --size toy` runs the same in seconds.

Prints one JSON line per size: tokens per second of rollout (sampled) and of update (prompt and response, each
epoch counted), model FLOPs utilisation of both against this machine's own matrix product, the rollout's
weight traffic against its own memory bandwidth, and peak memory.
"""

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

from rlhf.models.critic import ValueHead
from rlhf.models.loading import attach_lora
from rlhf.models.precision import Precision, attention_implementation
from rlhf.models.rendering import Renderer
from rlhf.models.reward import RewardModel
from rlhf.models.sampling import sample
from rlhf.training import ppo, rollout
from rlhf.training.actors import Actors
from rlhf.training.experience import learn_from
from rlhf.training.trained import Trained
from schemas.config import PPOConfig
from schemas.config.models import LoraConfig

PAD = 0
SHAPES: dict[str, dict[str, Any]] = {
    "toy": {
        "kind": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 128, "tie_word_embeddings": True,
    },
    "0.5b": {
        "kind": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
    "1.5b": {
        "kind": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
    "8b": {
        "kind": "llama", "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
KINDS = {
    "llama": (LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification),
}
THROUGH_LORA = {"1.5b", "8b"}


def main() -> None:
    """Measure this machine, then each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--size", choices=list(SHAPES), action="append", required=True)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--minibatch", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=256, help="tokens")
    parser.add_argument("--response", type=int, default=256, help="tokens")
    parser.add_argument("--micro-batch-tokens", type=int, default=16_384)
    parser.add_argument("--iterations", type=int, default=2, help="counted; one more warms up")
    arguments = parser.parse_args()
    ceilings = _ceilings(arguments.device)
    for size in arguments.size:
        print(json.dumps(_measure(size, arguments, ceilings)), flush=True)


def _measure(size: str, arguments: argparse.Namespace, ceilings: dict[str, float]) -> dict[str, Any]:
    """Time whole iterations of one size; the first one is not counted."""
    device = arguments.device
    precision = Precision(
        threads=torch.get_num_threads(), dtype="bf16" if device == "cuda" else "fp32", device=device
    )
    config = PPOConfig(
        batch_size=arguments.batch, minibatch_size=arguments.minibatch, epochs=2,
        max_new_tokens=arguments.response,
        micro_batch_tokens=arguments.micro_batch_tokens, target_kl=None, shared_trunk=True,
        lora=LoraConfig() if size in THROUGH_LORA else None,
    )  # fmt: skip
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    actors = _actors(size, config, device)
    trained = {
        "policy": Trained.by_adamw(actors.policy, config.learning_rate),
        "critic": Trained.by_adamw(actors.critic, config.critic_learning_rate),
    }
    vocabulary = SHAPES[size]["vocab_size"]
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(1, vocabulary, (arguments.batch, arguments.prompt), generator=generator).tolist()
    seconds: dict[str, list[float]] = {"sample": [], "collect": [], "update": []}
    rollout.encode_prompt = lambda _, ids: ids  # type: ignore[assignment,misc]  # there is no text
    actors = dataclasses.replace(actors, sampler=_timed(sample, seconds["sample"], device))
    for iteration in range(arguments.iterations + 1):
        sampled, plan = _timed(rollout.collect, seconds["collect"], device)(
            actors, prompts, config, precision=precision, seed=0, iteration=iteration
        )
        _timed(ppo.update, seconds["update"], device)(
            actors, trained, learn_from(sampled, config, kl_coef=config.kl_coef), plan, config,
            kl_coef=config.kl_coef, precision=precision, iteration=iteration,
        )  # fmt: skip
    mean = {name: sum(found[1:]) / len(found[1:]) for name, found in seconds.items()}
    return _line(size, arguments, actors, config, mean, ceilings)


def _line(
    size: str, arguments: argparse.Namespace, actors: Actors, config: PPOConfig, seconds: dict[str, float],
    ceilings: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Turn seconds into rates and shares of the ceilings."""
    sampled = arguments.batch * arguments.response
    updated = arguments.batch * (arguments.prompt + arguments.response) * config.epochs
    weights = _matrix_weights(actors.policy)
    # Forward 2 FLOPs per weight and token, backward twice that; a frozen weight needs no gradient of its own.
    per_token = 4 * weights if config.lora else 6 * weights
    number_bytes = 2 if config.lora else 4  # of a stored weight
    traffic = weights * number_bytes * arguments.response  # each step reads all weights once
    peak = torch.cuda.max_memory_allocated() / 2**30 if arguments.device == "cuda" else None
    return {
        "size": size,
        "machine": torch.cuda.get_device_name() if arguments.device == "cuda" else platform.machine(),
        "parameters": sum(parameter.numel() for parameter in actors.policy.parameters()),
        "trained": "lora" if config.lora else "all",
        "rollout_tokens_per_s": round(sampled / seconds["sample"], 1),
        "scoring_s": round(seconds["collect"] - seconds["sample"], 3),
        "update_tokens_per_s": round(updated / seconds["update"], 1),
        "rollout_mfu": round(2 * weights * sampled / seconds["sample"] / ceilings["matmul_flops"], 4),
        "update_mfu": round(per_token * updated / seconds["update"] / ceilings["matmul_flops"], 4),
        "rollout_bandwidth_share": round(traffic / seconds["sample"] / ceilings["bytes_per_s"], 4),
        "peak_memory_gib": None if peak is None else round(peak, 2),
        "matmul_tflops": round(ceilings["matmul_flops"] / 1e12, 3),
        "bandwidth_gb_per_s": round(ceilings["bytes_per_s"] / 1e9, 1),
        "torch": torch.__version__,
    }  # fmt: skip


def _actors(size: str, config: PPOConfig, device: str) -> Actors:
    torch.manual_seed(0)
    policy = _model(size, device, scalar=False, dtype=torch.bfloat16 if config.lora else torch.float32)
    reference = None
    if config.lora is None:
        reference = _model(size, device, scalar=False, dtype=torch.float32)
        reference.load_state_dict(policy.state_dict())
        reference.requires_grad_(False)
    scorer = "toy" if size == "toy" else "0.5b"
    reward_model = RewardModel(_model(scorer, device, scalar=True, dtype=torch.float32))
    reward_model.model.requires_grad_(False)
    width = SHAPES[size]["hidden_size"]
    tokenizer: Any = None  # there is no text
    return Actors(
        policy=attach_lora(policy, config.lora, "CAUSAL_LM").eval() if config.lora else policy,
        frozen_reference=reference,
        critic=ValueHead(width).to(device),
        reward_model=reward_model,
        tokenizer=tokenizer,
        renderer=Renderer(tokenizer, tokenizer),
        stop=frozenset({SHAPES[size]["vocab_size"]}),  # no id ends a response
        pad_id=PAD,
        device=torch.device(device),
    )


def _model(size: str, device: str, *, scalar: bool, dtype: torch.dtype) -> PreTrainedModel:
    shape = dict(SHAPES[size])
    configuration, language, classifier = KINDS[shape.pop("kind")]
    config: PreTrainedConfig = configuration(
        **shape, pad_token_id=PAD, max_position_embeddings=8192, num_labels=1,
        attn_implementation=attention_implementation(device),
    )  # fmt: skip
    with torch.device(device):
        model = (classifier if scalar else language)(config)
    return model.to(dtype).eval()  # type: ignore[no-any-return]


def _matrix_weights(model: torch.nn.Module) -> int:
    """Count the weights that each token is multiplied with: all matrices, a tied embedding once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 2)


def _ceilings(device: str) -> dict[str, float]:
    """Measure the fastest of a few large matrix products (bf16 on a GPU) and copies."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product = min(_seconds(lambda: left @ right, device) for _ in range(10))
    source = torch.empty((2**31 if device == "cuda" else 2**27) // 4, device=device)
    target = torch.empty_like(source)
    copying = min(_seconds(lambda: target.copy_(source), device) for _ in range(10))
    return {"matmul_flops": 2 * size**3 / product, "bytes_per_s": 2 * source.numel() * 4 / copying}


def _seconds(work: Callable[[], object], device: str) -> float:
    found: list[float] = []
    _timed(work, found, device)()
    return found[0]


def _timed(work: Callable[..., Any], seconds: list[float], device: str) -> Callable[..., Any]:
    def timed(*arguments: object, **options: object) -> Any:
        begun = time.perf_counter()
        result = work(*arguments, **options)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
        return result

    return timed


if __name__ == "__main__":
    main()
