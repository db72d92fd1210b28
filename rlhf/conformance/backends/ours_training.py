"""Training runs of this project on the suite's data."""

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf.conformance.backend import Lora, Messages, Models
from rlhf.conformance.models import ANSWERS, QUESTIONS, WORSE
from rlhf.data.chat import encode_prompt, encode_response
from rlhf.models.loading import attach_lora, load_weights, merge
from rlhf.models.precision import Precision
from rlhf.models.reward import RewardModel
from rlhf.training import dpo, ppo, reward, reward_steps, sft
from rlhf.training.comparisons import Comparison
from rlhf.training.step import OnStep, StepMetrics
from schemas.config import GRPOConfig, LoraConfig, OnlineSection, PPOConfig, RLOOConfig
from schemas.config.aligners import DPOConfig
from schemas.config.reward import RewardConfig
from schemas.config.supervised import SFTConfig

FP32 = Precision(threads=1, dtype="fp32")
ONLINE: dict[str, type[OnlineSection]] = {"ppo": PPOConfig, "rloo": RLOOConfig, "grpo": GRPOConfig}


def preferences(pairs: Sequence[tuple[Messages, str, str]]) -> pl.DataFrame:
    """Return pairs as the table that the preferences stage publishes."""
    rows = [
        {
            "prompt_id": str(number),
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "chosen_finished": True,
            "rejected_finished": True,
            "margin": None,
            "weight": 1.0,
        }
        for number, (prompt, chosen, rejected) in enumerate(pairs)
    ]
    return pl.DataFrame(rows, schema_overrides={"margin": pl.Float64})


def train(
    trainer: str,
    models: Models,
    out: Path,
    *,
    steps: int,
    batch_size: int,
    micro_batch_size: int,
    learning_rate: float = 1e-3,
    max_grad_norm: float = 1.0,
    lora: Lora | None = None,
) -> None:
    """Call the stage's `fit`."""
    options = {
        "steps": steps, "batch_size": batch_size, "micro_batch_size": micro_batch_size,
        "learning_rate": learning_rate, "max_grad_norm": max_grad_norm, "warmup_fraction": 0.0,
        "lora": lora and {"rank": lora.rank, "dropout": lora.dropout},
    }  # fmt: skip
    pairs = preferences(list(zip(QUESTIONS, ANSWERS, WORSE, strict=True)))
    if trainer == "sft":
        table = pl.DataFrame({"prompt": QUESTIONS, "response": ANSWERS})
        config = SFTConfig.model_validate(options)
        sft.fit(models.policy, table, config, seed=0, precision=FP32, on_step=_nothing, out=out)
    elif trainer == "dpo":
        dpo_config = DPOConfig.model_validate(options)
        dpo.fit(models.policy, pairs, dpo_config, seed=0, precision=FP32, on_step=_nothing, out=out)
    elif trainer == "reward":
        candidates = pl.DataFrame(
            {"prompt": QUESTIONS, "responses": [[text] for text in ANSWERS], "finished": [[True]] * 8}
        )
        reward.fit(
            models.policy, pairs, None, candidates, RewardConfig.model_validate(options),
            rater_weights={}, seed=0, precision=FP32, on_step=_nothing, out=out,
        )  # fmt: skip
    else:
        online = online_config(
            trainer, batch_size, iterations=steps, micro_batch_size=micro_batch_size,
            learning_rate=learning_rate, max_grad_norm=max_grad_norm,
        )  # fmt: skip
        _run_online(models, online, out)


def resume(trainer: str, models: Models, out: Path, *, steps: int, stop_after: int | None) -> None:
    """Let an exception end the first run, if it is to be stopped; the second goes on from its checkpoint."""
    config = online_config(trainer, 4, iterations=steps)
    checkpoints = out / "checkpoints"
    if stop_after is not None:

        def stop(step: StepMetrics) -> None:
            if step.step > stop_after:
                raise InterruptedError

        with suppress(InterruptedError):
            _run_online(models, config, out, checkpoints=checkpoints, on_step=stop)
    _run_online(models, config, out, checkpoints=checkpoints)


def online_config(trainer: str, batch_size: int, **options: object) -> OnlineSection:
    """Return one optimizer step per iteration, without warm-up; groups have two responses unless the options say otherwise."""
    fixed: dict[str, object] = {
        "batch_size": batch_size,
        "minibatch_size": batch_size,
        "epochs": 1,
        "warmup_iterations": 0,
        "max_new_tokens": 6,
        "target_kl": None,
        "guard": {"agreement_falls": None},
    }
    if trainer != "ppo":
        fixed["group_size"] = 2
    return ONLINE[trainer].model_validate(fixed | options)


def _run_online(
    models: Models,
    config: OnlineSection,
    out: Path,
    *,
    checkpoints: Path | None = None,
    on_step: OnStep | None = None,
) -> None:
    prompts = pl.DataFrame({"prompt_id": [str(row) for row in range(8)], "prompt": QUESTIONS})
    with tempfile.TemporaryDirectory() as judge:
        save_reward(models.reward, Path(judge))
        ppo.fit(
            models.policy, Path(judge), prompts, config,
            seed=0, precision=FP32, on_step=on_step or _nothing, out=out, checkpoints=checkpoints,
        )  # fmt: skip


def reward_roundtrip(
    models: Models, out: Path, sequences: Sequence[list[int]], lora: LoraConfig | None
) -> tuple[Tensor, Tensor]:
    """Return the scores (B,) of the trained model with its adapters on, and of what is loaded again."""
    words = models.tokenizer
    comparisons = [
        Comparison(
            encode_prompt(words, prompt),
            [encode_response(words, better), encode_response(words, worse)],
            pairs=[(0, 1, 1.0, 0.0)],
        )
        for prompt, better, worse in zip(QUESTIONS, ANSWERS, WORSE, strict=True)
    ]
    config = RewardConfig(steps=3, batch_size=4, learning_rate=1e-2)
    model = RewardModel.from_policy(models.policy, seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = attach_lora(model.model, lora, "SEQ_CLS") if lora else model.model
        for _ in reward_steps.train(model, comparisons, config, precision=FP32, seed=0):
            pass
    before_B = model.raw_scores(sequences)
    whole = RewardModel(merge(trained))
    whole.set_normalisation(mean=0.0, std=1.0)
    whole.save(out)
    words.save_pretrained(out)
    return before_B, RewardModel.load(out).raw_scores(sequences)


def save_reward(source: Path, out: Path) -> None:
    """Save the suite's reward model as the reward stage would, with scores of mean 0 and deviation 1."""
    model = RewardModel(load_weights(source, "cpu", AutoModelForSequenceClassification, num_labels=1))
    model.set_normalisation(mean=0.0, std=1.0)
    model.save(out)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)


def _nothing(_: StepMetrics) -> None:
    """Tell nobody."""
