"""Does the guard notice that PPO exploits a weak reward model, without seeing the truth?

    python -m benchmarks.over_optimisation --seeds 0 1 2 3 [--home FOLDER] [--iterations 35]

The reward model learns from about 2,000 pairs and the tether is loose (kl_coef 0.03), so the policy comes to
please the reward model rather than people. Per seed, from the same start:

1. without a limit, for all iterations: the policy of each look is kept, and the hidden utility ('gold') of
   its responses to held-out prompts says when it was at its best;
2. with `guard.agreement_stalls` on `stop`: where it stops, and what it returns.

PPO is given the held-out preferences and nothing else; gold is computed here, after training. One JSON line
per seed (`looks` has the curve), then the table.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import load_file

from rlhf.data.chat import decode_response, encode_prompt, stop_ids
from rlhf.data.helpdesk.utility import judge
from rlhf.data.helpdesk.world import World
from rlhf.models.loading import load_policy, save_model
from rlhf.models.precision import Precision, apply
from rlhf.models.sampling import sample
from rlhf.training import ppo
from rlhf.training.step import StepMetrics
from schemas.config import AlarmConfig, EvaluateConfig, GuardConfig, PPOConfig
from schemas.refs import Ref

OVERRIDES = ("sample.num_prompts=520", "reward.held_out_fraction=0.3", "compute.precision=fp32")
"""520 prompts with 4 ranked responses give about 2,900 pairs, of which 30 % are held out."""
PRECISION = Precision(threads=1, dtype="fp32")
SAMPLES = 4
"""Responses per held-out prompt whose gold is averaged; different numbers, the same in every look."""


@dataclass(frozen=True)
class Inputs:
    """What the stages before PPO have left in the store."""

    seed: int
    sft: Path
    reward: Path
    prompts: pl.DataFrame
    preferences: pl.DataFrame
    """Of the prompts that the reward model was not trained on."""
    held_out: pl.DataFrame
    accuracy: float
    """Of the reward model on those pairs."""


def prepare(home: Path, seed: int) -> Inputs:
    """Run the pipeline up to the reward model; what is in the home already is re-used."""
    command = [sys.executable, "-m", "flows.cli", "stage", "reward", "helpdesk", f"seed={seed}", "--json"]
    done = subprocess.run(
        [*command, *OVERRIDES],
        env={**os.environ, "RLHF_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    stages = {stage["name"]: stage for stage in json.loads(done.stdout)["stages"]}

    def path(stage: str, output: str) -> Path:
        return Path(Ref(**_bare(stages[stage]["outputs"][output])).uri.removeprefix("file://"))

    return Inputs(
        seed=seed,
        sft=path("sft", "model"),
        reward=path("reward", "model"),
        prompts=pl.read_parquet(path("validate", "prompts")),
        preferences=pl.read_parquet(path("reward", "held_out")),
        held_out=pl.read_parquet(path("validate", "held_out")),
        accuracy=stages["reward"]["metrics"]["held_out_accuracy"],
    )


def _bare(ref: dict[str, Any]) -> dict[str, Any]:
    return {name: ref[name] for name in ("uri", "digest")}


def train(inputs: Inputs, config: PPOConfig, folder: Path) -> tuple[list[StepMetrics], dict[int, Path]]:
    """Run PPO; return its curve, and the checkpoint of each look."""
    curve: list[StepMetrics] = []
    state, looks = folder / "state", dict[int, Path]()

    def keep_checkpoint() -> None:
        # A checkpoint is replaced by the next one, so each is set aside before that is written.
        for path in state.glob("iteration-*/policy.safetensors"):
            iteration = int(path.parent.name.removeprefix("iteration-"))
            if iteration not in looks:
                looks[iteration] = Path(shutil.copy(path, folder / f"policy-{iteration}.safetensors"))

    def on_step(step: StepMetrics) -> None:
        curve.append(step)
        keep_checkpoint()

    ppo.fit(
        inputs.sft,
        inputs.reward,
        inputs.prompts,
        config,
        seed=inputs.seed,
        precision=PRECISION,
        on_step=on_step,
        out=folder / "model",
        preferences=inputs.preferences,
        checkpoints=state,
    )
    keep_checkpoint()
    return curve, looks


def gold(inputs: Inputs, policy: Path) -> float:
    """Return the mean hidden utility of a policy's responses to the held-out prompts."""
    config, world = EvaluateConfig(), World(inputs.seed)
    model, tokenizer = load_policy(policy)
    asked = inputs.held_out["prompt"].to_list()
    utilities: list[float] = []
    for number in range(SAMPLES):
        with torch.no_grad():
            drawn = sample(
                model,
                [encode_prompt(tokenizer, messages) for messages in asked],
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                stop=stop_ids(model, tokenizer),
                pad_id=int(tokenizer.pad_token_id),
                batch_size=len(asked),
                generator=torch.Generator().manual_seed(number),
            )
        utilities += [
            judge(world, messages[-1]["content"], decode_response(tokenizer, completion.ids)).utility
            for messages, completion in zip(asked, drawn, strict=True)
        ]
    return sum(utilities) / len(utilities)


def golds(inputs: Inputs, looks: dict[int, Path], folder: Path) -> Iterator[tuple[int, float]]:
    """Yield each look's iteration and gold."""
    yield 0, gold(inputs, inputs.sft)
    policy, tokenizer = load_policy(inputs.sft)
    for iteration, weights in sorted(looks.items()):
        policy.load_state_dict(load_file(weights), strict=False)
        save_model(policy, tokenizer, folder / "look")
        yield iteration, gold(inputs, folder / "look")


def study(inputs: Inputs, iterations: int, folder: Path) -> dict[str, Any]:
    """Train without and with the limit, and compare what each look and each run is worth."""
    every = GuardConfig().evaluate_every
    config = PPOConfig(iterations=iterations, kl_coef=0.03, checkpoint_every=every)
    free, stopped = folder / "free", folder / "stopped"
    curve, looks = train(inputs, config, free)
    by_iteration = dict(golds(inputs, looks, free))
    stop = GuardConfig(agreement_stalls=AlarmConfig(limit=1.64, action="stop"))
    guarded, _ = train(inputs, config.model_copy(update={"guard": stop}), stopped)
    peak = max(by_iteration, key=lambda iteration: by_iteration[iteration])
    return {
        "seed": inputs.seed,
        "reward_accuracy": round(inputs.accuracy, 3),
        "held_out_pairs": inputs.preferences.height,
        "gold_peak": peak,
        "stop": len(guarded) if len(guarded) < iterations else None,
        "looks_apart": abs(len(guarded) - peak) / every,
        "returned": int(guarded[-1].metrics["best_iteration"]),
        "gold_sft": round(by_iteration[0], 3),
        "gold_at_peak": round(by_iteration[peak], 3),
        "gold_returned": round(gold(inputs, stopped / "model"), 3),
        "gold_last": round(by_iteration[iterations], 3),
        "looks": [
            {
                "iteration": step.step,
                "score": round(step.metrics["score"], 3),
                "kl": round(step.metrics["kl"], 2),
                "agreement": round(step.metrics["agreement"], 4),
                "fall": round(step.metrics["agreement_fall"], 2),
                "rise": round(step.metrics.get("agreement_rise", 0.0), 2),
                "gold": round(by_iteration[step.step], 3),
            }
            for step in curve
            if step.step in by_iteration
        ],
    }


def main() -> None:
    """Study the seeds and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--iterations", type=int, default=35)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "rlhf-benchmark")
    arguments = parser.parse_args()
    apply(PRECISION)
    columns = ("seed", "gold_peak", "stop", "looks_apart", "returned", "gold_sft", "gold_at_peak",
               "gold_returned", "gold_last")  # fmt: skip
    rows = []
    for seed in arguments.seeds:
        inputs = prepare(arguments.home / f"seed{seed}", seed)
        with tempfile.TemporaryDirectory() as folder:
            rows.append(study(inputs, arguments.iterations, Path(folder)))
        print(json.dumps(rows[-1]), flush=True)
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(str(row[name]) for name in columns)} |")


if __name__ == "__main__":
    main()
