"""Supervised fine-tuning on demonstrations; the loss counts response tokens only."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from trl import SFTConfig as TRLConfig
from trl import SFTTrainer

from rlhf.data.chat import encode_prompt, encode_response
from rlhf.models.loading import load_policy, merge, peft_config
from rlhf.models.precision import Precision
from rlhf.training.schedule import schedule
from rlhf.training.step import OnStep
from rlhf.training.trl_adapter import WithoutTelemetry, arguments, model_of, save, train
from schemas.config.supervised import OptimiserConfig, SFTConfig
from schemas.errors import DataRejected

logger = logging.getLogger(__name__)

IGNORED = -100
"""The label of a token that the loss leaves out."""

Example = tuple[list[int], list[int]]
"""Token ids and their labels."""


class LanguageModelTrainer(WithoutTelemetry, SFTTrainer):
    """TRL's trainer for next-token prediction."""


def fit(
    base: Path,
    demonstrations: pl.DataFrame,
    config: SFTConfig,
    *,
    seed: int,
    precision: Precision,
    on_step: OnStep,
    out: Path,
) -> dict[str, float]:
    """Train the base on the demonstrations, save the policy to `out`, return the last steps' mean metrics."""
    model, tokenizer = load_policy(base, device=precision.device)
    examples = encode_examples(tokenizer, demonstrations.iter_rows(named=True), max_length=config.max_length)
    model, metrics = learn(
        model, tokenizer, examples, config, seed=seed, precision=precision, on_step=on_step
    )
    save(model, tokenizer, out)
    return metrics


def learn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[Example],
    config: OptimiserConfig,
    *,
    seed: int,
    precision: Precision,
    on_step: OnStep,
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Train on the examples; return the model, adapters merged, and the last steps' mean metrics."""
    lengths = [len(ids) for ids, _ in examples]
    order = schedule(
        [[row] for row in range(len(examples))],
        lengths,
        batch_size=config.batch_size,
        steps=config.steps,
        seed=seed,
    )
    rows = [{"input_ids": ids, "labels": labels} for ids, labels in examples]
    trainer = LanguageModelTrainer(
        model=model,
        args=TRLConfig(
            **arguments(config, seed=seed, precision=precision),
            max_length=None,
            dataset_kwargs={
                "skip_prepare_dataset": True
            },  # it is tokenised: TRL's own way would parse special tokens
        ),
        train_dataset=Dataset.from_list(rows).select(order),
        processing_class=tokenizer,
        peft_config=peft_config(config.lora, "CAUSAL_LM") if config.lora else None,
    )
    metrics = train(trainer, precision, on_step)
    return merge(model_of(trainer)), metrics


def encode_examples(
    tokenizer: PreTrainedTokenizerFast, demonstrations: Iterable[Mapping[str, Any]], *, max_length: int
) -> list[Example]:
    """Return (ids, labels) of each demonstration, cut to `max_length`; the prompt's labels are ignored."""
    examples: list[Example] = []
    total = cut = 0
    for row in demonstrations:
        prompt = encode_prompt(tokenizer, row["prompt"])
        response = encode_response(tokenizer, row["response"])
        total += 1
        cut += len(prompt) + len(response) > max_length
        if len(prompt) < max_length:
            ids, labels = prompt + response, [IGNORED] * len(prompt) + response
            examples.append((ids[:max_length], labels[:max_length]))
    if not examples:
        raise DataRejected(
            f"None of the {total} demonstrations has a prompt shorter than max_length={max_length} tokens; "
            "raise sft.max_length or check the data."
        )
    if cut:
        logger.warning(
            "%d of %d demonstrations were longer than max_length=%d and were cut; %d had no room to answer",
            cut, total, max_length, total - len(examples),
        )  # fmt: skip
    return examples
