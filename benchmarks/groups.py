"""GRPO by this project and by TRL's GRPOTrainer: the same policy, reward model, prompts and batch.

    python -m benchmarks.groups --sft FOLDER --reward FOLDER [--iterations 4]

Both draw 128 responses (16 prompts, 8 each, at most 64 tokens) per iteration, take four optimizer steps on
them, and hold the KL to the SFT policy in the loss. TRL's reward is our reward model on the very ids that it
sampled. Each side has a process and one thread. Prints one JSON line per side: processor seconds per
iteration (median without the first), the mean score of the first and of the last iteration.
"""

import argparse
import copy
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

BATCH, GROUP, MINIBATCH, TOKENS, RATE, KL_COEF = 128, 8, 32, 64, 7e-5, 0.1


def main() -> None:
    """Run both sides one after the other, or the one that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sft", type=Path, required=True)
    parser.add_argument("--reward", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--side", choices=["ours", "trl"])
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps({"ours": ours, "trl": trl}[arguments.side](arguments)))
        return
    for side in ("ours", "trl"):
        command = [sys.executable, "-m", "benchmarks.groups", *sys.argv[1:], "--side", side]
        subprocess.run(command, check=True)


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run `ppo.fit` with the section of GRPO."""
    import polars as pl

    from rlhf.models.precision import Precision
    from rlhf.training import ppo
    from schemas.config import GRPOConfig

    config = GRPOConfig(
        iterations=arguments.iterations, batch_size=BATCH, group_size=GROUP, minibatch_size=MINIBATCH,
        max_new_tokens=TOKENS, learning_rate=RATE, kl_coef=KL_COEF, target_kl=None, warmup_iterations=0,
    )  # fmt: skip
    prompts = pl.DataFrame({"prompt_id": [str(n) for n in range(len(_questions()))], "prompt": _questions()})
    ended, scores = [time.process_time()], []

    def on_step(step: Any) -> None:
        ended.append(time.process_time())
        scores.append(step.metrics["score"])

    with tempfile.TemporaryDirectory() as folder:
        ppo.fit(
            arguments.sft, arguments.reward, prompts, config, seed=0,
            precision=Precision(threads=1, dtype="fp32"), on_step=on_step, out=Path(folder),
        )  # fmt: skip
    return _told("ours", ended, scores)


def trl(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run TRL's trainer; its reward reads ids, not text."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from rlhf.data.chat import encode_prompt
    from rlhf.models.loading import load_policy
    from rlhf.models.reward import RewardModel

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model, tokenizer = load_policy(arguments.sft)
    judge = RewardModel.load(arguments.reward)
    ended, scores = [time.process_time()], []

    def score(prompts: list[Any], completion_ids: list[list[int]], **_: object) -> list[float]:
        rows = [encode_prompt(tokenizer, p) + ids for p, ids in zip(prompts, completion_ids, strict=True)]
        found: list[float] = judge.normalised_scores(rows).tolist()
        scores.append(sum(found) / len(found))
        return found

    class Watch(TrainerCallback):
        def on_step_end(self, _: object, state: Any, *__: object, **___: object) -> None:
            if state.global_step % (BATCH // MINIBATCH) == 0:
                ended.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        # The reference would be loaded from where the model's config says it is.
        model.config._name_or_path = str(arguments.sft)
        trainer = GRPOTrainer(
            model=copy.deepcopy(model),
            reward_funcs=score,
            args=GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=MINIBATCH,
                steps_per_generation=BATCH // MINIBATCH,
                num_generations=GROUP,
                max_completion_length=TOKENS,
                learning_rate=RATE,
                beta=KL_COEF,
                max_steps=arguments.iterations * BATCH // MINIBATCH,
                lr_scheduler_type="constant",
                loss_type="grpo",
                bf16=False,
                gradient_checkpointing=False,
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                logging_steps=10_000,
            ),
            train_dataset=Dataset.from_dict({"prompt": _questions()}),
            processing_class=tokenizer,
            callbacks=[Watch()],
        )
        trainer.train()
    return _told("trl", ended, scores)


def _questions() -> list[list[dict[str, str]]]:
    from rlhf.data.helpdesk.world import World

    texts = World(0).questions(512)
    return [[{"role": "user", "content": text}] for text in texts]


def _told(side: str, ended: list[float], scores: list[float]) -> dict[str, Any]:
    each = [later - earlier for earlier, later in itertools.pairwise(ended[1:])]
    return {
        "side": side,
        "cpu_s_per_iteration": round(statistics.median(each), 2),
        "first_score": round(scores[0], 3),
        "last_score": round(scores[-1], 3),
    }


if __name__ == "__main__":
    main()
