"""Training runs of TRL's trainers on the suite's data."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import peft
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PrinterCallback,
    TrainerCallback,
)
from transformers.modeling_outputs import SequenceClassifierOutput
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from rlhf.conformance.backend import Lora, Models
from rlhf.conformance.models import ANSWERS, QUESTIONS, WORSE
from rlhf.training.trl_adapter import WithoutTelemetry

TRAINERS = {
    "sft": (SFTTrainer, SFTConfig),
    "reward": (RewardTrainer, RewardConfig),
    "dpo": (DPOTrainer, DPOConfig),
    "rloo": (RLOOTrainer, RLOOConfig),
    "grpo": (GRPOTrainer, GRPOConfig),
}


@cache
def quiet(trainer: type[Any]) -> type[Any]:
    """Return the trainer without its messages to its makers: the suite uses no network."""
    return type(trainer.__name__, (WithoutTelemetry, trainer), {})


@contextmanager
def arguments(config: type[Any], **options: Any) -> Iterator[Any]:
    """Yield a trainer's arguments: its defaults, but fp32 on a CPU and nothing written or reported."""
    with tempfile.TemporaryDirectory() as out:
        fixed = {
            "output_dir": out, "bf16": False, "gradient_checkpointing": False, "use_cpu": True,
            "dataloader_pin_memory": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
            "logging_steps": 1, "seed": 0,
        }  # fmt: skip
        yield config(**(fixed | options))


def lora_config(lora: Lora | None, **options: Any) -> peft.LoraConfig | None:
    """Translate for PEFT."""
    if lora is None:
        return None
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=4,
        lora_dropout=lora.dropout,
        bias=lora.bias,
        target_modules="all-linear",
        **options,
    )


def words_of(folder: Path) -> Any:
    """Load the tokenizer of a folder."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def comparison_loss(models: Models, chosen_B: Tensor, rejected_B: Tensor) -> tuple[Tensor, float]:
    """Let the reward trainer compute its loss of a model that answers with these scores."""

    class Fixed(nn.Module):
        def forward(self, **_: object) -> SequenceClassifierOutput:
            return SequenceClassifierOutput(logits=torch.cat([chosen_B, rejected_B])[:, None])

    with arguments(RewardConfig) as args:
        trainer = quiet(RewardTrainer)(
            model=str(models.reward),
            args=args,
            train_dataset=rows("reward"),
            processing_class=models.tokenizer,
        )
        trainer.model.train()
        ones = torch.ones(2 * len(chosen_B), 1, dtype=torch.long)
        loss = trainer.compute_loss(Fixed(), {"input_ids": ones, "attention_mask": ones})
        return loss, float(trainer._metrics["train"]["accuracy"][-1])


def rows(trainer: str) -> Dataset:
    """Return the suite's data as the trainer's documentation wants it."""
    data: list[dict[str, Any]] = []
    for prompt, better, worse in zip(QUESTIONS, ANSWERS, WORSE, strict=True):
        row: dict[str, Any] = {"prompt": prompt}
        if trainer == "sft":
            row["completion"] = [{"role": "assistant", "content": better}]
        elif trainer in ("reward", "dpo"):
            row["chosen"] = [{"role": "assistant", "content": better}]
            row["rejected"] = [{"role": "assistant", "content": worse}]
        data.append(row)
    return Dataset.from_list(data)


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
    """Build the trainer, train, save."""
    options = {
        "max_steps": steps, "per_device_train_batch_size": micro_batch_size,
        "gradient_accumulation_steps": batch_size // micro_batch_size,
        "learning_rate": learning_rate, "max_grad_norm": max_grad_norm,
    }  # fmt: skip
    with arguments(TRAINERS[trainer][1], **options | _sampling(trainer)) as args:
        built = _build(trainer, models, args, lora)
        built.train()
        built.save_model(str(out))


def resume(trainer: str, models: Models, out: Path, *, steps: int, stop_after: int | None) -> None:
    """Let the first trainer stop after it has saved a checkpoint, if it is to; another one goes on from there."""
    options = {
        "output_dir": str(out / "checkpoints"), "max_steps": steps, "per_device_train_batch_size": 4,
        "save_strategy": "steps", "save_steps": stop_after or steps,
    }  # fmt: skip

    class Stop(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: object) -> None:
            control.should_training_stop = True

    with arguments(TRAINERS[trainer][1], **options | _sampling(trainer)) as args:
        built = _build(trainer, models, args, None)
        built.add_callback(Stop())
        built.train()
        if stop_after:
            assert built.state.global_step == stop_after
            built = _build(trainer, models, args, None)
            built.train(resume_from_checkpoint=True)
        built.save_model(str(out))


def reward_roundtrip(models: Models, out: Path, lora: Lora | None) -> tuple[Tensor, Tensor]:
    """Save as the trainer does, load as transformers and PEFT do; the head is among `modules_to_save`, as documented."""
    with arguments(RewardConfig, max_steps=3, learning_rate=1e-2, per_device_train_batch_size=4) as args:
        trainer = quiet(RewardTrainer)(
            model=str(models.policy), args=args, train_dataset=rows("reward"), processing_class=models.tokenizer,
            peft_config=lora_config(lora, modules_to_save=["score"]),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.save_model(str(out))
        batch = trainer.data_collator(list(trainer.train_dataset))
    kind = AutoModelForSequenceClassification if lora is None else peft.AutoPeftModelForSequenceClassification
    loaded = kind.from_pretrained(out, num_labels=1, dtype=torch.float32)
    loaded.config.pad_token_id = models.tokenizer.pad_token_id
    with torch.no_grad():
        before_B, after_B = (model.eval()(**batch).logits[:, 0] for model in (trainer.model, loaded))
    return before_B, after_B


def _build(trainer: str, models: Models, args: Any, lora: Lora | None) -> Any:
    options: dict[str, Any] = {"train_dataset": rows(trainer), "processing_class": models.tokenizer}
    if trainer in ("rloo", "grpo"):
        judge = AutoModelForSequenceClassification.from_pretrained(models.reward, dtype=torch.float32)
        options["reward_funcs"] = judge
    if trainer == "reward":
        options["peft_config"] = lora_config(lora, modules_to_save=["score"])
    else:
        options["peft_config"] = lora_config(lora)
    built = quiet(TRAINERS[trainer][0])(model=str(models.policy), args=args, **options)
    built.remove_callback(PrinterCallback)
    return built


def _sampling(trainer: str) -> dict[str, Any]:
    return {"max_completion_length": 6, "num_generations": 2} if trainer in ("rloo", "grpo") else {}
