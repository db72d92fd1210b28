"""The other side of `benchmarks/ppo.py`, run by the interpreter that has `trl==1.12.0`.

It imports nothing of this project but the shapes beside it. Prints one JSON line: processor seconds per
iteration (median without the first), peak memory, scores by iteration.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from typing import Any

from ppo_shapes import (
    BATCH,
    EOS,
    EPOCHS,
    KL_COEF,
    LEARNING_RATES,
    LENGTHS,
    MINIBATCHES,
    PAD,
    SIZES,
    VALUE_COEF,
    make_policy,
    make_prompts,
    make_scorer,
    use_one_thread,
)


def main() -> None:
    """Train as told and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), required=True)
    parser.add_argument("--regime", choices=["full", "geo"], required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    use_one_thread()
    print(json.dumps(train(arguments)))


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run TRL's PPO with four fp32 models and its own code for everything."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    size, seed = arguments.size, arguments.seed
    seconds, scores = [time.process_time()], []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            seconds.append(time.process_time())

        def on_log(self, *_: object, logs: dict[str, float], **__: object) -> None:
            if "objective/scores" in logs:
                scores.append(logs["objective/scores"])

    with tempfile.TemporaryDirectory() as folder:
        config = PPOConfig(
            output_dir=folder, per_device_train_batch_size=BATCH, gradient_accumulation_steps=1,
            num_mini_batches=MINIBATCHES, num_ppo_epochs=EPOCHS,
            total_episodes=BATCH * (arguments.iterations + 1), response_length=LENGTHS[size][1],
            stop_token="eos", temperature=1.0, local_rollout_forward_batch_size=BATCH,  # noqa: S106
            num_sample_generations=0, report_to=[], use_cpu=True, bf16=False, save_strategy="no",
            learning_rate=LEARNING_RATES[size], lr_scheduler_type="constant", logging_steps=1,
            disable_tqdm=True,
            missing_eos_penalty=None, kl_coef=KL_COEF, vf_coef=VALUE_COEF, seed=seed,
        )  # fmt: skip
        policy, reference = (make_policy(size, arguments.regime, seed=seed) for _ in range(2))
        reward_model, value_model = (make_scorer(size, seed=seed) for _ in range(2))
        prompts = make_prompts(size, count=4 * BATCH, seed=seed)
        trainer = PPOTrainer(
            args=config, processing_class=_tokenizer(), model=policy, ref_model=reference,
            reward_model=reward_model, value_model=value_model,
            train_dataset=Dataset.from_dict({"input_ids": prompts}), callbacks=[Watch()],
        )  # fmt: skip
        trainer.train()
    each = [later - earlier for earlier, later in zip(seconds[1:], seconds[2:])]  # noqa: B905, RUF007
    return {
        "cpu_s": round(statistics.median(each), 3),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "scores": [round(score, 4) for score in scores],
    }


def _tokenizer() -> Any:
    """Return a tokenizer that only tells which ids are special: prompts are ids, and nothing is decoded."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": PAD, "<eos>": EOS, "<bos>": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<eos>")),  # noqa: S106
        pad_token="<pad>", eos_token="<eos>", bos_token="<bos>",  # noqa: S106
    )  # fmt: skip
    tokenizer.padding_side = "left"
    return tokenizer


if __name__ == "__main__":
    main()
