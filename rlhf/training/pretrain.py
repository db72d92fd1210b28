"""Language modelling of a corpus from random weights: a byte-level BPE tokenizer and a tiny Llama."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from rlhf.models.bpe import train_tokenizer
from rlhf.models.loading import merge
from rlhf.models.precision import Precision, attention_implementation
from rlhf.training.schedule import schedule
from rlhf.training.step import OnStep
from rlhf.training.trl_adapter import arguments, model_of, save, train
from schemas.config.models import ModelShape, PretrainConfig
from schemas.config.supervised import OptimiserConfig
from schemas.errors import DataRejected


def fit(
    texts: Iterable[str],
    config: PretrainConfig,
    *,
    seed: int,
    precision: Precision,
    on_step: OnStep,
    out: Path,
) -> dict[str, float]:
    """Train tokenizer and model on the texts, save both to `out`, and return the last steps' mean metrics."""
    documents = list(texts)
    tokenizer = train_tokenizer(documents, config.shape)
    blocks = pack(tokenizer, documents, config.block_size)
    optimiser = OptimiserConfig(
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        steps=config.steps,
        warmup_fraction=config.warmup_fraction,
        weight_decay=config.weight_decay,
    )
    set_seed(seed)
    model = LlamaForCausalLM(_llama(tokenizer, config.shape, precision.device))
    order = schedule(
        [[row] for row in range(len(blocks))],
        [config.block_size] * len(blocks),
        batch_size=config.batch_size,
        steps=config.steps,
        seed=seed,
    )
    # Not TRL's trainer: its entropy and accuracy of every token would cost a third of the time here.
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            **arguments(optimiser, seed=seed, precision=precision), include_num_input_tokens_seen="all"
        ),
        train_dataset=Dataset.from_dict({"input_ids": blocks}).select(order),
        data_collator=_collate,
        processing_class=tokenizer,
    )
    metrics = train(trainer, precision, on_step)
    save(merge(model_of(trainer)), tokenizer, out)
    return metrics


def pack(tokenizer: PreTrainedTokenizerFast, documents: list[str], block_size: int) -> list[list[int]]:
    """Lay the documents end to end, EOS after each, and cut blocks of `block_size` ids; drop the rest."""
    encoded = tokenizer(documents, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    stream: Iterator[int] = chain.from_iterable([*ids, tokenizer.eos_token_id] for ids in encoded)
    blocks = list(iter(lambda: list(islice(stream, block_size)), []))
    if blocks and len(blocks[-1]) < block_size:
        blocks.pop()
    if not blocks:
        raise DataRejected(
            f"The corpus of {len(documents)} documents does not fill one block of {block_size} tokens; "
            "add text or lower pretrain.block_size."
        )
    return blocks


def _llama(tokenizer: PreTrainedTokenizerFast, shape: ModelShape, device: str) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        attn_implementation=attention_implementation(device),  # type: ignore[call-arg]  # all configurations take it, none declares it
    )


def _collate(blocks: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    ids_BL = torch.tensor([block["input_ids"] for block in blocks])
    return {"input_ids": ids_BL, "labels": ids_BL, "attention_mask": torch.ones_like(ids_BL)}
