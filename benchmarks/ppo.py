"""PPO against the last TRL that had a PPO trainer, in pairs: same shapes, prompts, lengths and epochs.

    python benchmarks/ppo.py --peer PEER_PYTHON --peer-script SCRIPT --size tiny --regime geo --pairs 3

The peer's interpreter has `trl==1.12.0`; its script takes SIZE REGIME ITERATIONS and prints one JSON line
with `cpu_s` per iteration and `peak_rss_gb`. One iteration: 64 prompts of 32 tokens, up to 64 response
tokens, 4 epochs of 4 minibatches. SIZE is tiny (3M parameters) or small (30M); REGIME is full (all responses
64 tokens) or geo (geometric lengths of mean 24). Seconds are of the processor, one thread, so that a busy
machine disturbs less.

Prints one JSON line per configuration: `identical` has four fp32 models like the peer, `recommended` one
trunk for policy and values, bf16 autocast with fp32 attention where the processor has it, a token budget.
"""

import argparse
import copy
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BATCH, PROMPT, RESPONSE = 64, 32, 64
PAD, EOS = 0, 1
SIZES = {
    "tiny": {
        "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 6,
        "vocab_size": 2048,
    },
    "small": {
        "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8,
        "vocab_size": 8192,
    },
}  # fmt: skip
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "identical": {},
    "recommended": {"shared_trunk": True},
}


def main() -> None:
    """Run both sides in turns and print the ratios, or, as a worker, one side once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="interpreter of the environment that has the peer")
    parser.add_argument("--peer-script", type=Path)
    parser.add_argument("--size", choices=list(SIZES), default="tiny")
    parser.add_argument("--regime", choices=["full", "geo"], default="geo")
    parser.add_argument("--configuration", choices=list(CONFIGURATIONS), action="append")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3, help="of each run, the first one not counted")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(_ours(arguments)))
        return
    if not arguments.peer or not arguments.peer_script:
        parser.error("--peer and --peer-script name what to compare with")
    for configuration in arguments.configuration or list(CONFIGURATIONS):
        _compare(arguments, configuration)


def _compare(arguments: argparse.Namespace, configuration: str) -> None:
    work = ["--size", arguments.size, "--regime", arguments.regime]
    ours, theirs = [], []
    for _ in range(arguments.pairs):
        command = [arguments.peer, arguments.peer_script.name, arguments.size, arguments.regime]
        theirs.append(_run([*command, str(arguments.iterations)], arguments.peer_script.parent))
        command = [sys.executable, str(Path(__file__).absolute()), "--worker", *work]
        command += ["--configuration", configuration, "--iterations", str(arguments.iterations)]
        ours.append(_run(command, Path.cwd()))
    ratios = [peer["cpu_s"] / own["cpu_s"] for peer, own in zip(theirs, ours, strict=True)]
    line = {
        "size": arguments.size,
        "regime": arguments.regime,
        "configuration": configuration,
        "ratio": round(statistics.median(ratios), 2),
        "ratio_low": round(min(ratios), 2),
        "ratio_high": round(max(ratios), 2),
        "memory_ratio": round(theirs[0]["peak_rss_gb"] / ours[0]["peak_rss_gb"], 2),
        "pairs": arguments.pairs,
        "ours": {key: ours[-1][key] for key in ("cpu_s", "collect_s", "update_s", "peak_rss_gb", "dtype")},
        "peer": {key: theirs[-1][key] for key in ("cpu_s", "peak_rss_gb")},
    }
    print(json.dumps(line), flush=True)


def _run(command: list[str], folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "BT": "1", "OMP_NUM_THREADS": "1", "DROP": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time our iterations; the first one warms up."""
    import torch

    from rlhf.models.precision import Precision, apply, choose
    from rlhf.training import ppo, rollout
    from rlhf.training.experience import learn_from
    from rlhf.training.trained import Trained
    from schemas.config import ComputeConfig, PPOConfig

    name = arguments.configuration[0]
    dtype = "fp32" if name == "identical" else choose(ComputeConfig(threads=1)).dtype
    precision = Precision(threads=1, dtype=dtype)
    apply(precision)
    config = PPOConfig(
        batch_size=BATCH, minibatch_size=BATCH // 4, epochs=4, max_new_tokens=RESPONSE, target_kl=None,
        learning_rate=1e-5, critic_learning_rate=1e-5, missing_eos_penalty=0.0, **CONFIGURATIONS[name],
    )  # fmt: skip
    actors = _actors(arguments.size, arguments.regime, shared_trunk=config.shared_trunk)
    trained = {
        "policy": Trained.by_adamw(actors.policy, 1e-5),
        "critic": Trained.by_adamw(actors.critic, 1e-5),
    }
    # The peer is given ids too: no text is encoded on either side.
    rollout.encode_prompt = lambda _, ids: ids  # type: ignore[assignment,misc]
    vocabulary = SIZES[arguments.size]["vocab_size"]
    prompts = torch.randint(5, vocabulary, (BATCH, PROMPT), generator=torch.Generator().manual_seed(0))
    seconds: list[tuple[float, float]] = []
    for iteration in range(arguments.iterations + 1):
        begun = time.process_time()
        sampled, plan = rollout.collect(
            actors, prompts.tolist(), config, precision=precision, seed=0, iteration=iteration
        )
        experience = learn_from(sampled, config, kl_coef=0.05)
        collected = time.process_time()
        metrics = ppo.update(
            actors, trained, experience, plan, config, kl_coef=0.05, precision=precision, iteration=iteration
        )
        assert metrics["optimizer_steps"] == 16
        seconds.append((collected - begun, time.process_time() - collected))
    kept = seconds[1:]
    return {
        "cpu_s": round(statistics.median(sum(pair) for pair in kept), 3),
        "collect_s": round(statistics.median(pair[0] for pair in kept), 3),
        "update_s": round(statistics.median(pair[1] for pair in kept), 3),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "dtype": dtype,
        "response_length": float(sampled.mask_BT.sum()) / BATCH,
    }


def _actors(size: str, regime: str, *, shared_trunk: bool) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    from rlhf.models.critic import Critic, ValueHead
    from rlhf.models.precision import attention_implementation
    from rlhf.models.rendering import Renderer
    from rlhf.models.reward import RewardModel
    from rlhf.training.actors import Actors

    tokenizer: Any = None  # prompts are ids here
    torch.manual_seed(0)
    shape = LlamaConfig(
        **SIZES[size], max_position_embeddings=512, tie_word_embeddings=True, pad_token_id=PAD,
        eos_token_id=EOS, bos_token_id=2, attn_implementation=attention_implementation("cpu"),
    )  # fmt: skip
    policy = LlamaForCausalLM(shape).eval()
    # A constant bias of the EOS logit makes lengths geometric, or all of them full.
    bias = torch.zeros(shape.vocab_size)
    bias[EOS] = math.log(shape.vocab_size / 23) if regime == "geo" else -30.0
    policy.lm_head = torch.nn.Linear(shape.hidden_size, shape.vocab_size)
    policy.lm_head.weight = policy.get_input_embeddings().weight
    policy.lm_head.bias = torch.nn.Parameter(bias, requires_grad=False)
    scorer = copy.deepcopy(shape)
    scorer.num_labels = 1
    reward_model, critic = (RewardModel(LlamaForSequenceClassification(scorer).eval()) for _ in range(2))
    reward_model.model.requires_grad_(False)
    return Actors(
        policy=policy,
        frozen_reference=copy.deepcopy(policy).requires_grad_(False),
        critic=ValueHead(shape.hidden_size) if shared_trunk else Critic(critic.model, mean=0.0, std=1.0),
        reward_model=reward_model,
        renderer=Renderer(tokenizer, tokenizer),
        tokenizer=tokenizer,
        stop=frozenset({EOS}),
        pad_id=PAD,
        device=torch.device("cpu"),
    )


if __name__ == "__main__":
    main()
