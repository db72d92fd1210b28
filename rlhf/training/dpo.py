"""Direct preference optimisation (Rafailov et al. 2023, eq. 7) against the SFT policy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl import DPOConfig as TRLConfig
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from rlhf.models.loading import load_policy, merge, peft_config
from rlhf.models.precision import Precision
from rlhf.training.step import OnStep
from rlhf.training.trl_adapter import (
    ForwardPass,
    WithoutTelemetry,
    arguments,
    model_of,
    pair_rows,
    save,
    train,
    weigh,
)
from schemas.config import DPOConfig

_Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Prompt and response."""


class WeightedCollator(DataCollatorForPreference):
    """TRL's batches, with the weights of the pairs."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch with `weight` (pairs,)."""
        batch: dict[str, Any] = super().torch_call(examples)
        return batch | {"weight": torch.tensor([example["weight"] for example in examples])}


class PreferenceTrainer(WithoutTelemetry, DPOTrainer):
    """TRL's trainer on tokenised pairs, with the model that it is given as its reference.

    Left alone, TRL would insist on text and tokenise it its own way, and without precomputed log-probs
    it would load its reference from where the model's config says: not always the model that was passed.

    A column `weight` says how much a pair counts; weights should have mean 1.
    """

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the weights, too, when columns without use are dropped."""
        super()._set_signature_columns_if_needed()  # type: ignore[no-untyped-call]  # trl's
        columns: list[str] = self._signature_columns or []
        self._signature_columns = [*columns, "weight"]  # type: ignore[assignment]  # trl's

    def _compute_loss(self, model: ForwardPass, inputs: dict[str, Tensor], return_outputs: bool) -> Tensor:
        """Weigh the gradient of each pair, whatever the loss; the loss that is logged counts all alike."""
        weights = inputs.pop("weight", None)
        if weights is None:
            unweighted: Tensor = super()._compute_loss(model, inputs, return_outputs)  # type: ignore[no-untyped-call]  # trl's
            return unweighted

        # A pair's loss depends on the log-probabilities of its two rows only.
        model = weigh(model, torch.cat([weights, weights]))
        weighted: Tensor = super()._compute_loss(model, inputs, return_outputs)  # type: ignore[no-untyped-call]  # trl's
        return weighted

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        """Take the dataset as it is: it holds ids."""
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Score each distinct response once, by the model as it is now, in batches of similar length.

        Unless the rows have the scores already: then they are the reference's, and one sweep pays for them once.
        """
        if "ref_chosen_logps" in dataset.column_names:
            return dataset
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
    reference: pl.DataFrame | None = None,
) -> dict[str, float]:
    """Train the SFT policy on the preferences, save it to `out`, and return the last steps' mean metrics.

    `reference` is what the SFT policy says of the pairs (see `rlhf.training.reference`); default: it is asked here.
    """
    model, tokenizer = load_policy(sft, device=precision.device, four_bit=config.load_in_4bit)
    rows = pair_rows(tokenizer, preferences, config, weighted=config.weighted, seed=seed, reference=reference)
    trainer = PreferenceTrainer(
        model=model,
        args=TRLConfig(
            **arguments(config, seed=seed, precision=precision),
            max_length=None,
            beta=config.beta,
            loss_type=list(config.loss),
            loss_weights=None if config.loss_weights is None else list(config.loss_weights),
            label_smoothing=config.label_smoothing,
            precompute_ref_log_probs=True,
            disable_dropout=not (config.lora and config.lora.dropout),
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=WeightedCollator(pad_token_id=tokenizer.pad_token_id),
        peft_config=peft_config(config.lora, "CAUSAL_LM") if config.lora else None,
    )
    metrics = train(trainer, precision, on_step)
    save(merge(model_of(trainer), onto=sft if config.load_in_4bit else None), tokenizer, out)
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
