"""Direct preference optimisation (Rafailov et al. 2023, eq. 7) against the SFT policy."""

from pathlib import Path

import polars as pl
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from trl import DPOConfig as TRLConfig
from trl import DPOTrainer

from rlhf.models.loading import load_policy, merge, peft_config, save_model
from rlhf.models.precision import Precision, apply, autocast
from rlhf.models.sampling import response_logprobs
from rlhf.training.pairs import Pair, encode_pairs
from rlhf.training.schedule import schedule
from rlhf.training.step import OnStep
from rlhf.training.trl_adapter import WithoutTelemetry, arguments, train
from schemas.config.aligners import DPOConfig


class PreferenceTrainer(WithoutTelemetry, DPOTrainer):  # type: ignore[misc]  # trl ships no annotations
    """TRL's trainer, on rows that are tokenised and carry the reference's log-probabilities.

    Left alone, TRL would tokenise text its own way, and load its reference from the place that the model's
    config names, which need not be the model that was passed.
    """

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: object) -> Dataset:
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
    apply(precision)
    with autocast(precision):
        rows = with_reference(model, tokenizer, [pairs[row] for row in order], batch_size=config.batch_size)
    trainer = PreferenceTrainer(
        model=model,
        args=arguments(
            TRLConfig,
            config,
            seed=seed,
            precision=precision,
            max_length=None,
            beta=config.beta,
            loss_type=[config.loss],
            label_smoothing=config.label_smoothing,
            precompute_ref_log_probs=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=config.lora and peft_config(config.lora, "CAUSAL_LM"),
    )
    metrics = train(trainer, precision, on_step)
    save_model(merge(trainer.model), tokenizer, out)
    return metrics


def with_reference(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pairs: list[Pair], *, batch_size: int
) -> list[dict[str, list[int] | float]]:
    """Return TRL's rows: ids, and the summed log-probability that the model as it is now gives each response."""
    distinct = dict.fromkeys(
        (tuple(pair.prompt), tuple(response)) for pair in pairs for response in (pair.chosen, pair.rejected)
    )
    prompts, responses = zip(*distinct, strict=True)
    logprobs = response_logprobs(
        model,
        [list(ids) for ids in prompts],
        [list(ids) for ids in responses],
        temperature=1.0,
        pad_id=tokenizer.pad_token_id,
        batch_size=batch_size,
    )
    reference = {key: float(value.sum()) for key, value in zip(distinct, logprobs, strict=True)}
    return [
        {
            "prompt_ids": pair.prompt,
            "chosen_ids": pair.chosen,
            "rejected_ids": pair.rejected,
            "ref_chosen_logps": reference[tuple(pair.prompt), tuple(pair.chosen)],
            "ref_rejected_logps": reference[tuple(pair.prompt), tuple(pair.rejected)],
        }
        for pair in pairs
    ]
