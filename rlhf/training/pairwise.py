"""The trainer of the aligners that learn from pairs without a reference policy; each brings its loss.

TRL's trainers of this kind are experimental, and encode texts in a way of their own: not as the policy is sampled.
Shapes: P pairs.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import polars as pl
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from trl.trainer.utils import disable_dropout_in_model

from rlhf.algorithms.pairwise import PairLogprobs
from rlhf.models.batches import ResponseBatch, collate, score_tokens
from rlhf.models.loading import attach_lora, load_policy, merge
from rlhf.models.precision import Precision
from rlhf.training.step import OnStep
from rlhf.training.trl_adapter import arguments, model_of, pair_rows, save, train
from schemas.config.aligners.pairwise import PairwiseSection

PairLoss = Callable[[PairLogprobs], Tensor]
"""Returns one value per pair (P,)."""


class FitOptions(TypedDict):
    """What each `fit` hands on."""

    seed: int
    precision: Precision
    on_step: OnStep
    out: Path


class PairTrainer(Trainer):
    """Minimises the weighted mean of a loss over pairs; log-probabilities are those that the sampler draws from."""

    loss_is_scaled_for_ga = False

    def __init__(self, *, loss: PairLoss, pad_id: int, **options: Any) -> None:
        super().__init__(data_collator=self._collate, **options)
        self._loss, self._pad_id = loss, pad_id
        self._measured: dict[str, list[Tensor]] = defaultdict(list)
        self._tokens = 0

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: object, **__: object) -> Tensor:
        """Return the mean over the pairs of weight times loss; weights have mean 1 over all pairs."""
        batch, weight_P = ResponseBatch(**inputs["batch"]), inputs["weight"]
        logprobs_BT = score_tokens(model, batch, temperature=1.0, pad_id=self._pad_id)
        chosen_P, rejected_P = logprobs_BT.sum(dim=1).chunk(2)
        chosen_tokens_P, rejected_tokens_P = batch.mask_BT.sum(dim=1).chunk(2)
        policy = PairLogprobs(
            chosen_P=chosen_P,
            rejected_P=rejected_P,
            chosen_tokens_P=chosen_tokens_P,
            rejected_tokens_P=rejected_tokens_P,
        )
        self._measure(policy, batch)
        loss: Tensor = (weight_P * self._loss(policy)).mean()
        return loss

    def _measure(self, policy: PairLogprobs, batch: ResponseBatch) -> None:
        with torch.no_grad():
            gap_P = policy.chosen_P - policy.rejected_P
            measured = {
                "accuracies": (gap_P > 0).float(),
                "margins": gap_P,
                "logps/chosen": policy.chosen_P,
                "logps/rejected": policy.rejected_P,
            }
            for name, value_P in measured.items():
                self._measured[name].append(value_P.detach().mean())
        # The last column of the responses is learnt, and nothing is read there.
        self._tokens += int(batch.attention_BL.sum() + batch.mask_BT[:, -1].sum())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what was measured since the last call."""
        means = {name: float(torch.stack(values).mean()) for name, values in self._measured.items()}
        self._measured.clear()
        super().log({**logs, **means, "num_tokens": float(self._tokens)}, start_time)

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Return nothing: transformers would look for `input_ids`, and warn."""
        return 0

    def _collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Lay out all chosen responses, then all rejected ones."""
        laid = collate(
            [row["prompt_ids"] for row in rows] * 2,
            [row[f"{side}_ids"] for side in ("chosen", "rejected") for row in rows],
            pad_id=self._pad_id,
            device=torch.device("cpu"),
        )
        fields = ("inputs_BL", "attention_BL", "positions_BL", "responses_BT", "mask_BT")
        return {
            "batch": {name: getattr(laid, name) for name in fields},
            "weight": torch.tensor([row["weight"] for row in rows]),
        }


def fit(
    sft: Path,
    preferences: pl.DataFrame,
    config: PairwiseSection,
    loss: PairLoss,
    *,
    seed: int,
    precision: Precision,
    on_step: OnStep,
    out: Path,
) -> dict[str, float]:
    """Train the SFT policy on the preferences, save it to `out`, and return the last steps' mean metrics."""
    model, tokenizer = load_policy(sft, device=precision.device, four_bit=config.load_in_4bit)
    rows = pair_rows(tokenizer, preferences, config, weighted=config.weighted, seed=seed)
    with torch.random.fork_rng():  # adapters draw their first weights from the global generator
        torch.manual_seed(seed)
        trained = attach_lora(model, config.lora, "CAUSAL_LM") if config.lora else model
    if not (config.lora and config.lora.dropout):
        disable_dropout_in_model(trained)
    pad_id = tokenizer.pad_token_id
    assert isinstance(pad_id, int)  # load_policy checks it
    trainer = PairTrainer(
        loss=loss,
        pad_id=pad_id,
        model=trained,
        args=TrainingArguments(
            **arguments(config, seed=seed, precision=precision), remove_unused_columns=False
        ),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    metrics = train(trainer, precision, on_step)
    save(merge(model_of(trainer), onto=sft if config.load_in_4bit else None), tokenizer, out)
    return metrics
