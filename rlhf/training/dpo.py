"""Direct preference optimisation (Rafailov et al. 2023, eq. 7) against the SFT policy."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl import DPOConfig as TRLConfig
from trl import DPOTrainer

from rlhf.data.pairs import encode_pairs
from rlhf.models.loading import load_policy, merge, peft_config, save_model
from rlhf.models.precision import Precision
from rlhf.training.schedule import schedule
from rlhf.training.step import OnStep
from rlhf.training.trl_adapter import WithoutTelemetry, arguments, model_of, train
from schemas.config.aligners import DPOConfig

_Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Prompt and response."""


class PreferenceTrainer(WithoutTelemetry, DPOTrainer):
    """TRL's trainer on tokenised pairs, with the model that it is given as its reference.

    Left alone, TRL would insist on text and tokenise it its own way, and without precomputed log-probs
    it would load its reference from where the model's config says: not always the model that was passed.
    """

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        """Take the dataset as it is: it holds ids."""
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Score each distinct response once, by the model as it is now, in batches of similar length."""
        rows = {
            side: [
                (tuple(prompt), tuple(response))
                for prompt, response in zip(dataset["prompt_ids"], dataset[f"{side}_ids"], strict=True)
            ]
            for side in ("chosen", "rejected")
        }
        distinct = sorted(
            {*rows["chosen"], *rows["rejected"]}, key=lambda row: (len(row[0]) + len(row[1]), row)
        )
        logprobs: dict[_Row, float] = {}
        for start in range(0, len(distinct), 2 * batch_size):
            part = distinct[start : start + 2 * batch_size]
            batch = self._prepare_inputs(_collate(part))
            halves = self.compute_ref_log_probs(self.model, batch)  # type: ignore[no-untyped-call]  # trl's
            logprobs |= zip(part, torch.cat(halves).tolist(), strict=True)
        for side, keys in rows.items():
            dataset = dataset.add_column(f"ref_{side}_logps", [logprobs[key] for key in keys])
        return dataset


def fit(
    sft: Path,
    preferences: pl.DataFrame,
    config: DPOConfig,
    *,
    seed: int,
    precision: Precision,
    on_step: OnStep,
    out: Path,
) -> dict[str, float]:
    """Train the SFT policy on the preferences, save it to `out`, and return the last steps' mean metrics."""
    model, tokenizer = load_policy(sft, device=precision.device)
    pairs = encode_pairs(tokenizer, preferences, max_length=config.max_length)
    order = schedule(
        [[row] for row in range(len(pairs))],
        [pair.length for pair in pairs],
        batch_size=config.batch_size,
        steps=config.steps,
        seed=seed,
    )
    rows = [
        {"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
        for pair in pairs
    ]
    trainer = PreferenceTrainer(
        model=model,
        args=TRLConfig(
            **arguments(config, seed=seed, precision=precision),
            max_length=None,
            beta=config.beta,
            loss_type=[config.loss],
            label_smoothing=config.label_smoothing,
            precompute_ref_log_probs=True,
            disable_dropout=not (config.lora and config.lora.dropout),
        ),
        train_dataset=Dataset.from_list(rows).select(order),
        processing_class=tokenizer,
        peft_config=peft_config(config.lora, "CAUSAL_LM") if config.lora else None,
    )
    metrics = train(trainer, precision, on_step)
    save_model(merge(model_of(trainer)), tokenizer, out)
    return metrics


def _collate(rows: Sequence[_Row]) -> dict[str, Tensor]:
    """Pad on the right; what fills the ids does not matter, because both masks are 0 there."""
    columns = {
        "input_ids": [prompt + response for prompt, response in rows],
        "attention_mask": [(1,) * (len(prompt) + len(response)) for prompt, response in rows],
        "completion_mask": [(0,) * len(prompt) + (1,) * len(response) for prompt, response in rows],
    }
    return {
        name: pad_sequence([torch.tensor(row) for row in values], batch_first=True)
        for name, values in columns.items()
    }
