"""PPO against the last TRL that had a PPO trainer, in pairs: same shapes, prompts, lengths and steps.

    python -m venv PEER
    PEER/bin/pip install torch==2.13.0 trl==1.12.0 transformers==5.23.0 peft==0.21.2
    python benchmarks/ppo.py --peer PEER/bin/python --size tiny --regime geo --pairs 3
    python benchmarks/ppo.py --peer PEER/bin/python --curves 4

One iteration: 64 prompts of 32 tokens, up to 64 response tokens, 4 epochs of 4 minibatches. SIZE is tiny (3M
parameters) or small (30M); REGIME is full (all responses 64 tokens) or geo (geometric lengths of mean 24).
Seconds are of the processor, one thread, so that a busy machine disturbs less, without the first iteration.

Prints one JSON line per configuration: `identical` has four fp32 models like the peer, `recommended` one
trunk for policy and values, and bf16 autocast with fp32 attention where the processor has it.

`--curves N` trains a model of two layers (16 response tokens) against a random reward model on N seeds, both
sides from the same weights, and prints the mean score of the first and last iterations of each.
"""

import argparse
import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BATCH, EPOCHS, MINIBATCHES = 64, 4, 4
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "identical": {},
    "recommended": {"shared_trunk": True},
}
CURVE = 40
"""Iterations of a learning curve."""


def main() -> None:
    """Run both sides in turns and print what they show, or, as a worker, our side once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="interpreter of the environment that has the peer")
    parser.add_argument("--size", choices=["learner", "tiny", "small"], default="tiny")
    parser.add_argument("--regime", choices=["full", "geo"], default="geo")
    parser.add_argument("--configuration", choices=list(CONFIGURATIONS), action="append")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3, help="of each run, one more warms up")
    parser.add_argument("--curves", type=int, metavar="SEEDS", help="compare learning instead of seconds")
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(_ours(arguments)))
        return
    if not arguments.peer:
        parser.error("--peer names the interpreter to compare with")
    arguments.configuration = arguments.configuration or list(CONFIGURATIONS)
    if arguments.curves:
        _learn(arguments)
    else:
        _compare(arguments)


def _compare(arguments: argparse.Namespace) -> None:
    """Time both sides; each configuration's ratio is to the peer's run of the same turn."""
    work = ["--size", arguments.size, "--regime", arguments.regime, "--iterations", str(arguments.iterations)]
    theirs: list[dict[str, Any]] = []
    ours: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.configuration}
    for _ in range(arguments.pairs):
        theirs.append(_run(arguments.peer, "ppo_peer.py", work))
        for name, runs in ours.items():
            runs.append(_run(sys.executable, "ppo.py", [*work, "--worker", "--configuration", name]))
    for name, runs in ours.items():
        ratios = [peer["cpu_s"] / own["cpu_s"] for peer, own in zip(theirs, runs, strict=True)]
        line = {
            "size": arguments.size,
            "regime": arguments.regime,
            "configuration": name,
            "ratio": round(statistics.median(ratios), 2),
            "ratio_low": round(min(ratios), 2),
            "ratio_high": round(max(ratios), 2),
            "memory_ratio": round(theirs[0]["peak_rss_gb"] / runs[0]["peak_rss_gb"], 2),
            "pairs": arguments.pairs,
            "ours": {key: value for key, value in runs[-1].items() if key != "scores"},
            "peer": {key: theirs[-1][key] for key in ("cpu_s", "peak_rss_gb")},
        }
        print(json.dumps(line), flush=True)


def _learn(arguments: argparse.Namespace) -> None:
    """Train both sides on each seed; responses so far are the same at each iteration."""
    for seed in range(arguments.curves):
        work = ["--size", "learner", "--regime", "full", "--iterations", str(CURVE), "--seed", str(seed)]
        scores = {"peer": _run(arguments.peer, "ppo_peer.py", work)["scores"]}
        for name in arguments.configuration:
            own = _run(sys.executable, "ppo.py", [*work, "--worker", "--configuration", name])
            scores[name] = own["scores"]
        line: dict[str, Any] = {"seed": seed, "responses": BATCH * (CURVE + 1)}
        for name, curve in scores.items():
            parts = {"first": curve[:1], "half": curve[CURVE // 2 - 2 : CURVE // 2 + 3], "last": curve[-5:]}
            line[name] = {part: round(statistics.mean(values), 3) for part, values in parts.items()}
        print(json.dumps(line), flush=True)


def _run(interpreter: str, script: str, work: list[str]) -> dict[str, Any]:
    command = [interpreter, str(Path(__file__).with_name(script).absolute()), *work]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if script == "ppo_peer.py":
        environment.pop("PYTHONPATH", None)  # what it imports is its own
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run our iterations: seconds of each, and the mean score of its responses."""
    from ppo_shapes import KL_COEF, LEARNING_RATES, LENGTHS, VALUE_COEF, make_prompts, use_one_thread

    from rlhf.models.precision import Precision, apply, choose
    from rlhf.training import ppo, rollout
    from rlhf.training.experience import learn_from
    from rlhf.training.trained import Trained
    from schemas.config import ComputeConfig, PPOConfig

    use_one_thread()
    name, size, seed = arguments.configuration[0], arguments.size, arguments.seed
    dtype = "fp32" if name == "identical" else choose(ComputeConfig(threads=1)).dtype
    precision = Precision(threads=1, dtype=dtype)
    apply(precision)
    config = PPOConfig(
        batch_size=BATCH, minibatch_size=BATCH // MINIBATCHES, epochs=EPOCHS, max_new_tokens=LENGTHS[size][1],
        target_kl=None, learning_rate=LEARNING_RATES[size], critic_learning_rate=LEARNING_RATES[size],
        kl_coef=KL_COEF, value_coef=VALUE_COEF, missing_eos_penalty=0.0, score_clip=1e3, warmup_iterations=0,
        max_grad_norm=1e6,  # the peer does not clip its gradients
        **CONFIGURATIONS[name],
    )  # fmt: skip
    actors = _actors(size, arguments.regime, shared_trunk=config.shared_trunk, seed=seed)
    trained = {
        "policy": Trained.by_adamw(actors.policy, config.learning_rate),
        "critic": Trained.by_adamw(actors.critic, config.critic_learning_rate),
    }
    # The peer is given ids too: no text is encoded on either side.
    rollout.encode_prompt = lambda _, ids: ids  # type: ignore[assignment,misc]
    prompts = make_prompts(size, count=4 * BATCH, seed=seed)
    seconds: list[tuple[float, float]] = []
    scores: list[float] = []
    for iteration in range(arguments.iterations + 1):
        begun = time.process_time()
        rows = rollout.prompt_rows(len(prompts), iteration=iteration, batch_size=BATCH, seed=seed)
        sampled, plan = rollout.collect(
            actors,
            [prompts[row] for row in rows],
            config,
            precision=precision,
            seed=seed,
            iteration=iteration,
        )
        experience = learn_from(sampled, config, kl_coef=KL_COEF)
        collected = time.process_time()
        metrics = ppo.update(
            actors,
            trained,
            experience,
            plan,
            config,
            kl_coef=KL_COEF,
            precision=precision,
            iteration=iteration,
        )
        assert metrics["optimizer_steps"] == EPOCHS * MINIBATCHES
        seconds.append((collected - begun, time.process_time() - collected))
        scores.append(round(sampled.scores_B.mean().item(), 4))
    kept = seconds[1:]
    return {
        "cpu_s": round(statistics.median(sum(pair) for pair in kept), 3),
        "collect_s": round(statistics.median(pair[0] for pair in kept), 3),
        "update_s": round(statistics.median(pair[1] for pair in kept), 3),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "dtype": dtype,
        "response_length": float(sampled.mask_BT.sum()) / BATCH,
        "scores": scores,
    }


def _actors(size: str, regime: str, *, shared_trunk: bool, seed: int) -> Any:
    import torch
    from ppo_shapes import EOS, PAD, SIZES, make_policy, make_scorer

    from rlhf.models.critic import Critic, ValueHead
    from rlhf.models.precision import attention_implementation
    from rlhf.models.rendering import Renderer
    from rlhf.models.reward import RewardModel
    from rlhf.training.actors import Actors

    tokenizer: Any = None  # prompts are ids here
    attention = attention_implementation("cpu")
    policy = make_policy(size, regime, seed=seed, attention=attention)
    reward_model = RewardModel(make_scorer(size, seed=seed, attention=attention))
    critic = Critic(copy.deepcopy(reward_model.model), mean=0.0, std=1.0)
    reward_model.model.requires_grad_(False)
    return Actors(
        policy=policy,
        frozen_reference=copy.deepcopy(policy).requires_grad_(False),
        critic=ValueHead(SIZES[size]["hidden_size"]) if shared_trunk else critic,
        reward_model=reward_model,
        renderer=Renderer(tokenizer, tokenizer),
        tokenizer=tokenizer,
        stop=frozenset({EOS}),
        pad_id=PAD,
        device=torch.device("cpu"),
    )


if __name__ == "__main__":
    main()
