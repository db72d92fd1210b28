"""The reward model: which of two responses people prefer (Ouyang et al. 2022, eq. 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutputWithPast
from trl import RewardConfig as TRLConfig
from trl import RewardTrainer

from rlhf.data.chat import encode_prompt, encode_response
from rlhf.data.splits import split_by_prompt
from rlhf.models.loading import load_tokenizer, merge, peft_config
from rlhf.models.precision import Precision, autocast
from rlhf.models.reward import RewardModel
from rlhf.training.pairs import Pair, encode_pairs
from rlhf.training.schedule import schedule
from rlhf.training.step import OnStep
from rlhf.training.trl_adapter import WithoutTelemetry, arguments, model_of, train
from schemas.config.supervised import RewardConfig
from schemas.errors import DataRejected, TrainingDiverged

_CALIBRATION_RESPONSES = 2_048
"""SFT responses that fix the scale of the scores: enough to know the mean to 0.02 standard deviations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardFit:
    """What was measured on the pairs of held-out prompts, and the scale of the scores."""

    correct: float
    """Held-out pairs whose chosen response scores higher; a tie counts half."""
    longer_correct: float
    """Held-out pairs whose chosen response is the longer one, in tokens; a tie counts half."""
    pairs: int
    """Held-out pairs."""
    score_mean: float
    score_std: float
    metrics: dict[str, float]


class PairTrainer(WithoutTelemetry, RewardTrainer):
    """TRL's trainer, on batches in which a response that several pairs share is computed once."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Spread the scores of the distinct sequences over the pairs, then let TRL compute its loss."""
        rows = inputs.pop("rows")

        def spread(**batch: Tensor) -> SequenceClassifierOutputWithPast:
            outputs: SequenceClassifierOutputWithPast = model(**batch)
            assert outputs.logits is not None, "a classification model always has them"
            outputs.logits = outputs.logits[rows]
            return outputs

        loss: Tensor = super().compute_loss(  # type: ignore[no-untyped-call]  # trl has not annotated it
            spread, inputs, return_outputs, num_items_in_batch
        )
        return loss


@dataclass(frozen=True, slots=True, kw_only=True)
class DistinctCollator:
    """Batches pairs so that each distinct sequence is there once and `rows` says which pair has which."""

    pad_id: int

    def __call__(self, pairs: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Return the batch: chosen rows first, then rejected rows, as TRL's loss expects."""
        sequences = [tuple(pair[side]) for side in ("chosen_ids", "rejected_ids") for pair in pairs]
        position = {sequence: index for index, sequence in enumerate(dict.fromkeys(sequences))}
        tensors = [torch.tensor(sequence) for sequence in position]
        pad = nn.utils.rnn.pad_sequence
        batch = {
            "input_ids": pad(tensors, batch_first=True, padding_value=self.pad_id),
            "attention_mask": pad([torch.ones_like(ids) for ids in tensors], batch_first=True),
            "rows": torch.tensor([position[sequence] for sequence in sequences]),
        }
        if "margin" in pairs[0]:
            batch["margin"] = torch.tensor([pair["margin"] for pair in pairs])
        return batch


def fit(
    sft: Path,
    preferences: pl.DataFrame,
    candidates: pl.DataFrame,
    config: RewardConfig,
    *,
    seed: int,
    precision: Precision,
    on_step: OnStep,
    out: Path,
) -> RewardFit:
    """Train a reward model from the SFT policy's trunk, measure it on held-out prompts, and save it to `out`.

    `candidates` are SFT responses: their scores become mean 0 and standard deviation 1.
    """
    tokenizer = load_tokenizer(sft)
    reward = RewardModel.from_policy(sft, seed=seed, device=precision.device)
    train_pairs, held_out = (
        encode_pairs(tokenizer, part, max_length=config.max_length)
        for part in split_by_prompt(preferences, config.held_out_fraction, seed)
    )
    trainer = PairTrainer(
        model=reward.model,
        args=TRLConfig(
            **arguments(config, seed=seed, precision=precision),
            max_length=None,
            center_rewards_coefficient=config.center_coefficient or None,
            disable_dropout=not (config.lora and config.lora.dropout),
        ),
        data_collator=DistinctCollator(pad_id=_pad_id(tokenizer)),
        train_dataset=_dataset(train_pairs, config, seed),
        processing_class=tokenizer,
        peft_config=peft_config(config.lora, "SEQ_CLS") if config.lora else None,
    )
    metrics = train(trainer, precision, on_step)
    trained = RewardModel(merge(model_of(trainer)))
    with autocast(precision):
        correct = _correct(trained, held_out, config.batch_size)
        responses = _encode_candidates(tokenizer, candidates, config.max_length, seed)
        metrics["length_correlation"] = _set_scale(trained, responses, config.batch_size)
    trained.save(out)
    tokenizer.save_pretrained(out)
    return RewardFit(
        correct=correct,
        longer_correct=sum(_win(len(pair.chosen), len(pair.rejected)) for pair in held_out),
        pairs=len(held_out),
        score_mean=trained.score_mean,
        score_std=trained.score_std,
        metrics=metrics,
    )


def _dataset(pairs: list[Pair], config: RewardConfig, seed: int) -> Dataset:
    """Lay out the pairs in training order, those of one prompt together (Ouyang et al. 2022, section 3.5)."""
    by_prompt: dict[str, list[int]] = {}
    for row, pair in enumerate(pairs):
        by_prompt.setdefault(pair.prompt_id, []).append(row)
    order = schedule(
        list(by_prompt.values()),
        [pair.length for pair in pairs],
        batch_size=config.batch_size,
        steps=config.steps,
        seed=seed,
    )
    rows = [
        {
            "chosen_ids": pair.prompt + pair.chosen,
            "rejected_ids": pair.prompt + pair.rejected,
            "margin": pair.margin,
        }
        for pair in pairs
    ]
    return Dataset.from_list(rows).select(order)


def _encode_candidates(
    tokenizer: PreTrainedTokenizerFast, candidates: pl.DataFrame, max_length: int, seed: int
) -> list[list[int]]:
    flat = candidates.select("prompt", "responses", "finished").explode("responses", "finished")
    if flat.is_empty():
        raise DataRejected(
            "The table of candidates is empty; the reward model needs SFT responses to set its scale."
        )
    flat = flat.sample(min(len(flat), _CALIBRATION_RESPONSES), seed=seed)
    return [
        (encode_prompt(tokenizer, prompt) + encode_response(tokenizer, text, finished=finished))[:max_length]
        for prompt, text, finished in flat.iter_rows()
    ]


def _set_scale(reward: RewardModel, responses: list[list[int]], batch_size: int) -> float:
    """Give these responses scores of mean 0 and deviation 1; return the correlation of score and length."""
    scores_B = reward.raw_scores(responses, batch_size=batch_size)
    mean, std = float(scores_B.mean()), float(scores_B.std())
    if not std > 0:
        raise TrainingDiverged(
            f"All {len(responses)} SFT responses have the score {mean:.4g}; wanted scores that differ. "
            "Train longer, or sample more varied responses."
        )
    reward.set_normalisation(mean=mean, std=std)
    lengths_B = torch.tensor([float(len(ids)) for ids in responses])
    return float(torch.corrcoef(torch.stack([scores_B, lengths_B]))[0, 1])


def _correct(reward: RewardModel, pairs: list[Pair], batch_size: int) -> float:
    sequences = [pair.prompt + response for pair in pairs for response in (pair.chosen, pair.rejected)]
    scores = reward.raw_scores(sequences, batch_size=batch_size).tolist()
    return sum(map(_win, scores[::2], scores[1::2]))


def _win(left: float, right: float) -> float:
    return 0.5 if left == right else float(left > right)


def _pad_id(tokenizer: PreTrainedTokenizerFast) -> int:
    assert isinstance(tokenizer.pad_token_id, int), "load_policy checked it when the SFT policy was made"
    return tokenizer.pad_token_id
