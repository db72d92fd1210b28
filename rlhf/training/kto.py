"""Kahneman-Tversky optimisation against the SFT policy (Ethayarajh et al. 2024, eq. 7 and 8)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from torch import Tensor
from trl import KTOConfig as TRLConfig
from trl import KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from rlhf.data.unpaired import Judged, encode_judged, from_feedback, from_preferences
from rlhf.models.loading import load_policy, merge, peft_config
from rlhf.models.precision import Precision
from rlhf.training.step import OnStep
from rlhf.training.trl_adapter import (
    ForwardPass,
    WithoutTelemetry,
    arguments,
    in_order,
    model_of,
    save,
    train,
    weigh,
)
from schemas.config import KTOConfig


class JudgedCollator(DataCollatorForUnpairedPreference):
    """TRL's batches, with the weights of the responses."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch with `weight` (responses,)."""
        batch: dict[str, Any] = super().torch_call(examples)
        return batch | {"weight": torch.tensor([example["weight"] for example in examples])}


class UnpairedTrainer(WithoutTelemetry, KTOTrainer):
    """TRL's trainer on tokenised responses, with the model that it is given as its reference.

    The traps are those of `dpo.PreferenceTrainer`. A column `weight` says how much a response counts; weights should
    have mean 1.
    """

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the weights, too, when columns without use are dropped."""
        super()._set_signature_columns_if_needed()  # type: ignore[no-untyped-call]  # trl's
        columns: list[str] = self._signature_columns or []
        self._signature_columns = [*columns, "weight"]  # type: ignore[assignment]  # trl's

    def _compute_loss(self, model: ForwardPass, inputs: dict[str, Tensor], return_outputs: bool) -> Tensor:
        """Weigh the gradient of each response; the loss that is logged counts all alike."""
        weights = inputs.pop("weight")
        weighted: Tensor = super()._compute_loss(weigh(model, weights), inputs, return_outputs)  # type: ignore[no-untyped-call]  # trl's
        return weighted

    def _prepare_dataset(self, dataset: Dataset, tokenizer: object, args: TRLConfig, *_: object) -> Dataset:
        """Take the ids as they are; each prompt gets the response of another one of its batch to estimate the KL from.

        The responses to one prompt lie together, so it is not the next row's but one half a batch away.
        """
        size, responses = args.per_device_train_batch_size, list(dataset["completion_ids"])
        batches = [responses[start : start + size] for start in range(0, len(responses), size)]
        strangers = [
            response for batch in batches for response in batch[len(batch) // 2 :] + batch[: len(batch) // 2]
        ]
        return dataset.add_column("KL_completion_ids", strangers) if self.calculate_KL else dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Score each row by the model as it is now."""
        columns: dict[str, list[float]] = {"ref_logps": [], "ref_KL_logps": []}
        for start in range(0, len(dataset), batch_size):
            rows = [dataset[row] for row in range(start, min(start + batch_size, len(dataset)))]
            batch = self._prepare_inputs(self.data_collator(rows))
            scored: Sequence[Tensor | None] = self.compute_ref_log_probs(self.model, batch)  # type: ignore[no-untyped-call]  # trl's
            for column, found in zip(columns.values(), scored, strict=True):
                column += [] if found is None else found.tolist()
        for column_name, values in columns.items():
            dataset = dataset.add_column(column_name, values) if values else dataset
        return dataset


def fit(
    sft: Path,
    preferences: pl.DataFrame,
    feedback: pl.DataFrame | None,
    config: KTOConfig,
    *,
    seed: int,
    precision: Precision,
    on_step: OnStep,
    out: Path,
) -> dict[str, float]:
    """Train the SFT policy on good and bad responses, save it to `out`, and return the last steps' mean metrics."""
    model, tokenizer = load_policy(sft, device=precision.device, four_bit=config.load_in_4bit)
    tables = [from_preferences(preferences)] if config.labels != "feedback" else []
    if config.labels != "preferences":
        assert feedback is not None, "the schema refuses labels from feedback without it"
        tables.append(from_feedback(feedback))
    judged = encode_judged(tokenizer, pl.concat(tables), max_length=config.max_length)
    weights, desirable_weight = balance(judged, config)
    rows = [
        {"prompt_ids": one.prompt, "completion_ids": one.response, "label": one.good, "weight": weight}
        for one, weight in zip(judged, weights, strict=True)
    ]
    # Good and bad responses to a prompt share a batch, or lengths would sort the kinds into batches of their own.
    units: dict[str, list[int]] = {}
    for row, one in enumerate(judged):
        units.setdefault(one.prompt_id, []).append(row)
    lengths = [len(one.prompt) + len(one.response) for one in judged]
    trainer = UnpairedTrainer(
        model=model,
        args=TRLConfig(
            **arguments(config, seed=seed, precision=precision),
            max_length=None,
            beta=config.beta,
            loss_type=config.loss,
            desirable_weight=desirable_weight,
            undesirable_weight=config.undesirable_weight,
            precompute_ref_log_probs=True,
            disable_dropout=not (config.lora and config.lora.dropout),
        ),
        train_dataset=in_order(rows, list(units.values()), lengths, config, seed=seed),
        processing_class=tokenizer,
        data_collator=JudgedCollator(pad_token_id=tokenizer.pad_token_id),
        peft_config=peft_config(config.lora, "CAUSAL_LM") if config.lora else None,
    )
    metrics = train(trainer, precision, on_step)
    save(merge(model_of(trainer), onto=sft if config.load_in_4bit else None), tokenizer, out)
    return metrics | {"good": float(sum(one.good for one in judged)), "desirable_weight": desirable_weight}


def balance(judged: Sequence[Judged], config: KTOConfig) -> tuple[list[float], float]:
    """Return the weight of each response (mean 1), and that of the good ones' loss: both kinds weigh the same (eq. 8)."""
    weights = [one.weight if config.weighted else 1.0 for one in judged]
    good = sum(weight for one, weight in zip(judged, weights, strict=True) if one.good)
    mean = sum(weights) / len(weights)
    balanced = config.undesirable_weight * (sum(weights) - good) / good
    return [weight / mean for weight in weights], config.desirable_weight or balanced
