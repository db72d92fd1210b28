"""SFT, reward model and DPO as the stages train them, against TRL's trainers with TRL's defaults, in pairs.

    python benchmarks/trl_stages.py --size tiny --pairs 3

Same model, texts, batch size and number of steps on both sides; SIZE is tiny (3M parameters) or small (30M).
Ours: threads and number type as measured at the start, bf16 autocast with fp32 attention where the processor
has it, no activation checkpointing, packed rows in the reward model, the reference scored once.
Theirs: what TRL's classes hold when nothing but data, steps, batch size and learning rate is said.

Seconds are wall time per optimizer step, median without the first step, so run it on an idle machine. DPO's
include what our side spends on the reference before the first step, spread over `--epochs` passes. Prints one
JSON line per stage: the median, lowest and highest of the paired ratios, and the ratio of peak memory.
"""

import argparse
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ppo_shapes import SIZES

BATCH = 16
STAGES = ("sft", "reward", "dpo")


def main() -> None:
    """Make the model, run both sides in turns and print the ratios, or, as a worker, one side once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=["tiny", "small"], default="tiny")
    parser.add_argument("--stage", choices=STAGES, action="append")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="of each run, the first one not counted")
    parser.add_argument(
        "--epochs", type=int, default=3, help="passes that DPO's reference pass is spread over"
    )
    parser.add_argument("--worker", choices=["ours", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        side = _ours if arguments.worker == "ours" else _theirs
        print(json.dumps(side(arguments.stage[0], arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        _make_model(arguments.size, model)
        for stage in arguments.stage or STAGES:
            _compare(stage, arguments, model)


def _compare(stage: str, arguments: argparse.Namespace, model: Path) -> None:
    found: dict[str, list[dict[str, Any]]] = {"trl": [], "ours": []}
    for _ in range(arguments.pairs):
        for side, runs in found.items():
            command = [sys.executable, __file__, "--worker", side, "--stage", stage, "--model", str(model)]
            command += ["--steps", str(arguments.steps), "--epochs", str(arguments.epochs)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
    pairs = list(zip(found["trl"], found["ours"], strict=True))
    ratios = [theirs["seconds"] / own["seconds"] for theirs, own in pairs]
    line = {
        "size": arguments.size,
        "stage": stage,
        "ratio": round(statistics.median(ratios), 2),
        "ratio_low": round(min(ratios), 2),
        "ratio_high": round(max(ratios), 2),
        "memory_ratio": round(pairs[0][0]["peak_rss_gb"] / pairs[0][1]["peak_rss_gb"], 2),
        "pairs": arguments.pairs,
        "ours": found["ours"][-1],
        "trl": found["trl"][-1],
    }
    print(json.dumps(line), flush=True)


def _texts(steps: int) -> list[tuple[str, str, str]]:
    """Return (prompt, one response, another one) of 20 to 60 words together, the same for both sides."""
    rng = random.Random(0)
    words = ["".join(rng.choice("aeioulnrst") for _ in range(rng.randint(2, 6))) for _ in range(600)]

    def text(low: int, high: int) -> str:
        return " ".join(rng.choice(words) for _ in range(rng.randint(low, high)))

    return [(text(8, 16), text(8, 40), text(8, 40)) for _ in range(BATCH * steps)]


def _make_model(size: str, folder: Path) -> None:
    """Save a model with random weights and a tokenizer that has learnt the texts."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlhf.models.bpe import train_tokenizer
    from rlhf.models.loading import save_model
    from schemas.config import ModelShape

    documents = [text for row in _texts(64) for text in row]
    tokenizer = train_tokenizer(documents, ModelShape(vocab_size=2048, max_positions=512))
    torch.manual_seed(0)
    shape = LlamaConfig(
        **SIZES[size], max_position_embeddings=512, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    save_model(LlamaForCausalLM(shape), tokenizer, folder)


def _ours(stage: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the stage's own `fit`."""
    import polars as pl

    from rlhf.models.precision import choose
    from rlhf.training import dpo, reward, sft
    from schemas.config import ComputeConfig, DPOConfig, RewardConfig, SFTConfig

    precision = choose(ComputeConfig())
    rows = _texts(arguments.steps)
    questions = [[{"role": "user", "content": prompt}] for prompt, _, _ in rows]
    pairs = pl.DataFrame(
        {
            "prompt_id": [f"{row:05d}" for row in range(len(rows))],
            "prompt": questions,
            "chosen": [row[1] for row in rows],
            "rejected": [row[2] for row in rows],
            "chosen_finished": True,
            "rejected_finished": True,
            "margin": pl.Series([None] * len(rows), dtype=pl.Float64),
            "weight": 1.0,
        }
    )
    told: list[float] = []
    out = arguments.model.parent / "out"
    options: dict[str, Any] = {"seed": 0, "precision": precision, "out": out}
    options["on_step"] = lambda _: told.append(time.perf_counter())
    begun = time.perf_counter()
    common: dict[str, Any] = {"steps": arguments.steps, "batch_size": BATCH}
    if stage == "sft":
        told_to = pairs.select("prompt", response="chosen")
        sft.fit(arguments.model, told_to, SFTConfig(**common), **options)
    elif stage == "dpo":
        dpo.fit(arguments.model, pairs, DPOConfig(**common), **options)
    else:
        candidates = pairs.head(BATCH).select(
            "prompt_id",
            "prompt",
            responses=pl.concat_list("chosen", "rejected"),
            finished=pl.lit([True, True]),
        )
        reward.fit(
            arguments.model, pairs, None, candidates, RewardConfig(**common), rater_weights={}, **options
        )
    found = _summary(told) | {"threads": precision.threads, "dtype": precision.dtype}
    if stage == "dpo":  # what came before the first step, less what a step takes, is the reference's pass
        before = max(0.0, told[0] - begun - found["seconds"])
        found["seconds"] = round(found["seconds"] + before / arguments.steps / arguments.epochs, 4)
    return found


def _theirs(stage: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run TRL's trainer as its documentation shows it."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
    )
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

    rows = _texts(arguments.steps)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)

    def said(role: str, texts: list[str]) -> list[list[dict[str, str]]]:
        return [[{"role": role, "content": text}] for text in texts]

    columns = {"prompt": said("user", [row[0] for row in rows])}
    told: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            told.append(time.perf_counter())

    common: dict[str, Any] = {
        "output_dir": str(arguments.model.parent / "trl"), "max_steps": arguments.steps,
        "per_device_train_batch_size": BATCH,
        "use_cpu": True, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "learning_rate": 1e-4,
    }  # fmt: skip
    kind = AutoModelForSequenceClassification if stage == "reward" else AutoModelForCausalLM
    extra = {"num_labels": 1} if stage == "reward" else {}
    model = kind.from_pretrained(arguments.model, dtype=torch.float32, **extra)
    if stage == "sft":
        columns["completion"] = said("assistant", [row[1] for row in rows])
        trainer_kind, config = SFTTrainer, SFTConfig(**common)
    else:
        columns["chosen"] = said("assistant", [row[1] for row in rows])
        columns["rejected"] = said("assistant", [row[2] for row in rows])
        trainer_kind, config = (
            (DPOTrainer, DPOConfig(**common)) if stage == "dpo" else (RewardTrainer, RewardConfig(**common))
        )
    trainer = trainer_kind(
        model=model, args=config, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer,
        callbacks=[Watch()],
    )  # fmt: skip
    trainer.train()
    kept = {"bf16": bool(config.bf16), "checkpointing": bool(config.gradient_checkpointing)}
    return _summary(told) | {"threads": torch.get_num_threads(), **kept}


def _summary(told: list[float]) -> dict[str, Any]:
    steps = [later - earlier for earlier, later in itertools.pairwise(told)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": round(statistics.median(steps), 4), "peak_rss_gb": round(peak, 2)}


if __name__ == "__main__":
    main()
