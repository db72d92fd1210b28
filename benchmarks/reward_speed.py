"""One forward pass per response against one per side of a pair: seconds of an optimizer step.

    python benchmarks/reward_speed.py --responses 4 9

Random prompts of 24 tokens with K responses of 24 tokens each, all K-choose-2 pairs, 8 prompts a step, on
a model of the default recipe's size. `shared` has all pairs of a prompt in one example; `apart` gives
every pair an example of its own, as a trainer that knows only pairs does: the same pairs, the same loss. The
two take turns, and the median step counts. One JSON line for each K.
"""

import argparse
import json
import statistics
import tempfile
import time
from itertools import combinations, pairwise
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlhf.data.pairs import Pair
from rlhf.models.precision import Precision, apply
from rlhf.models.reward import RewardModel
from rlhf.training.comparisons import Comparison, from_pairs
from rlhf.training.reward_steps import train
from schemas.config import RewardConfig

PROMPTS, LENGTH, VOCABULARY = 8, 24, 512


def comparisons(size: int, *, apart: bool) -> list[Comparison]:
    """Return the comparisons of one step."""
    generator = torch.Generator().manual_seed(size)
    pairs = []
    for prompt in range(PROMPTS):
        ids, *responses = torch.randint(3, VOCABULARY, (size + 1, LENGTH), generator=generator).tolist()
        for better, worse in combinations(range(size), 2):
            name = f"{prompt}/{better}/{worse}" if apart else str(prompt)
            pairs.append(
                Pair(
                    row=len(pairs), prompt_id=name, prompt=ids, chosen=responses[better],
                    rejected=responses[worse],
                )
            )  # fmt: skip
    return from_pairs(pairs)


def step_seconds(policy: Path, found: list[Comparison], precision: Precision, steps: int) -> list[float]:
    """Return how long each step took; the first one warms up and is left out."""
    model = RewardModel.from_policy(policy, seed=0)
    config = RewardConfig(steps=steps + 1, batch_size=len(found))
    times = [time.perf_counter()]
    for _ in train(model, found, config, precision=precision, seed=0):
        times.append(time.perf_counter())
    return [after - before for before, after in pairwise(times[1:])]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--responses", type=int, nargs="+", default=[4, 9])
    parser.add_argument("--steps", type=int, default=8, help="of each turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    arguments = parser.parse_args()
    precision = Precision(threads=arguments.threads, dtype=arguments.dtype)
    apply(precision)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=352, num_hidden_layers=4,
        num_attention_heads=4, max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(shape).save_pretrained(folder)
        for size in arguments.responses:
            times: dict[str, list[float]] = {"shared": [], "apart": []}
            for _ in range(arguments.turns):
                for name, seconds in times.items():
                    found = comparisons(size, apart=name == "apart")
                    seconds += step_seconds(Path(folder), found, precision, arguments.steps)
            shared, apart = (statistics.median(times[name]) for name in ("shared", "apart"))
            line = {"responses": size, "pairs": PROMPTS * size * (size - 1) // 2}
            line |= {"shared_ms": round(1e3 * shared, 1), "apart_ms": round(1e3 * apart, 1)}
            print(json.dumps(line | {"ratio": round(apart / shared, 2)}), flush=True)


if __name__ == "__main__":
    main()
