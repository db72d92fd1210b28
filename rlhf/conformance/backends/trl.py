"""TRL's trainers as their documentation uses them: datasets of messages, their own preparation, defaults but for fp32 on a CPU."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import (
    DPOConfig,
    DPOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)

from rlhf.conformance.backend import Messages, Models, Prompt, Start
from rlhf.conformance.backends import trl_training
from rlhf.conformance.backends.trl_online import OnlineTRL, policy_of
from rlhf.conformance.backends.trl_training import arguments, lora_config, quiet
from rlhf.conformance.models import ask


class TRL(OnlineTRL):
    """SFT, reward, DPO, RLOO and GRPO trainers of TRL."""

    name = "TRL"
    online = ("rloo", "grpo")
    trainers = ("sft", "reward", "dpo", "rloo", "grpo")

    def versions(self) -> Mapping[str, str]:
        """Return the versions of TRL and of what it stands on."""
        return {name: version(name) for name in ("trl", "transformers", "peft", "torch")}

    def demonstration(self, models: Models, prompt: Messages, response: str) -> tuple[list[int], list[int]]:
        """Prepare a prompt-completion dataset."""
        rows = [{"prompt": prompt, "completion": said(response)}]
        with arguments(SFTConfig, max_length=None) as args:
            trainer = quiet(SFTTrainer)(
                model=str(models.policy), args=args, train_dataset=Dataset.from_list(rows),
                processing_class=models.tokenizer,
            )  # fmt: skip
        row = trainer.train_dataset[0]
        return list(row["input_ids"]), list(row["labels"])

    def comparison(
        self, models: Models, prompt: Prompt, chosen: str, rejected: str, max_length: int | None = None
    ) -> tuple[list[int], list[int]] | None:
        """Prepare a preference dataset for the reward trainer."""
        trainer = _reward_trainer(models, models.reward, prompt, chosen, rejected, max_length=max_length)
        if not len(trainer.train_dataset):
            return None
        row = trainer.train_dataset[0]
        return list(row["chosen_ids"]), list(row["rejected_ids"])

    def preference(
        self, models: Models, prompt: Messages, chosen: str, rejected: str, max_length: int | None = None
    ) -> tuple[list[int], list[int], list[int]] | None:
        """Prepare and collate a preference dataset for DPO."""
        rows = [{"prompt": prompt, "chosen": said(chosen), "rejected": said(rejected)}]
        with arguments(DPOConfig, max_length=max_length) as args:
            trainer = quiet(DPOTrainer)(
                model=str(models.policy), args=args, train_dataset=Dataset.from_list(rows),
                processing_class=models.tokenizer,
            )  # fmt: skip
        if not len(trainer.train_dataset):
            return None
        batch = trainer.data_collator([trainer.train_dataset[0]])
        answer = batch["completion_mask"].bool()
        asked = batch["attention_mask"].bool() & ~answer
        chosen_ids, rejected_ids = (batch["input_ids"][side][answer[side]].tolist() for side in (0, 1))
        return batch["input_ids"][0][asked[0]].tolist(), chosen_ids, rejected_ids

    @torch.no_grad()
    def scores(self, reward: Path, sequences: Sequence[list[int]], *, pad_is_eos: bool = False) -> Tensor:
        """Collate and score as a step of the reward trainer does."""
        words = trl_training.words_of(reward)
        if pad_is_eos:
            words.pad_token = None  # the trainer documents that it takes EOS then
        trainer = _reward_trainer(None, reward, ask("hi"), "yes", "no", words=words)
        batch = trainer.data_collator([{"chosen_ids": ids, "rejected_ids": ids} for ids in sequences])
        scores_B: Tensor = trainer.model.eval()(**batch).logits[: len(sequences), 0]
        return scores_B

    def comparison_loss(self, models: Models, chosen_B: Tensor, rejected_B: Tensor) -> tuple[Tensor, float]:
        """Put these scores in the model's place."""
        return trl_training.comparison_loss(models, chosen_B, rejected_B)

    def first_preference_loss(
        self, start: Start, pairs: Sequence[tuple[Messages, str, str]], *, loss: str, beta: float
    ) -> float:
        """Train for one step; `ref_model` is left out, as documented for the initial policy."""
        rows = [{"prompt": p, "chosen": said(c), "rejected": said(r)} for p, c, r in pairs]
        options = {
            "max_steps": 1,
            "per_device_train_batch_size": len(pairs),
            "loss_type": [loss],
            "beta": beta,
        }
        with arguments(DPOConfig, **options) as args:
            trainer = quiet(DPOTrainer)(
                model=policy_of(start), args=args, train_dataset=Dataset.from_list(rows),
                processing_class=trl_training.words_of(start.folder), peft_config=lora_config(start.lora),
            )  # fmt: skip
            trainer.train()
        return float(trainer.state.log_history[0]["loss"])

    train = staticmethod(trl_training.train)
    resume = staticmethod(trl_training.resume)
    reward_roundtrip = staticmethod(trl_training.reward_roundtrip)


def said(text: str) -> Messages:
    """Return an answer as the datasets have it."""
    return [{"role": "assistant", "content": text}]


def _reward_trainer(
    models: Models | None, reward: Path, prompt: Prompt, chosen: str, rejected: str,
    *, words: Any = None, max_length: int | None = None,
) -> Any:  # fmt: skip
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    if not isinstance(prompt, str):
        row |= {"chosen": said(chosen), "rejected": said(rejected)}
    rows = [row]
    with arguments(RewardConfig, max_length=max_length) as args:
        return quiet(RewardTrainer)(
            model=str(reward), args=args, train_dataset=Dataset.from_list(rows),
            processing_class=words or (models.tokenizer if models else None),
        )  # fmt: skip


backend = TRL()
