"""The optimizer steps of a reward model: what a batch of comparisons costs, and how the weights follow.

Shapes: N responses of a batch, G prompts, K responses of a prompt (padded), R rankings, M members of an ensemble.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from rlhf.algorithms.preferences import (
    bradley_terry,
    centring,
    comparison_shares,
    length_correlation,
    plackett_luce,
)
from rlhf.models.precision import Precision, autocast
from rlhf.models.reward import RewardModel
from rlhf.training import processes
from rlhf.training.comparisons import Batch, Comparison, collate
from rlhf.training.schedule import schedule
from rlhf.training.step import StepMetrics
from schemas.config.reward import RewardConfig
from schemas.errors import TrainingDiverged


@dataclass(frozen=True, slots=True)
class Cost:
    """Of some prompts, as sums: those of micro-batches add up to the batch's."""

    loss: Tensor
    """() to be divided by `weight` and differentiated."""
    weight: Tensor
    """() of all comparisons."""
    right: Tensor
    """() pairs whose better response has the higher score; equal scores count half."""
    pairs: Tensor
    """()"""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.loss + other.loss,
            self.weight + other.weight,
            self.right + other.right,
            self.pairs + other.pairs,
        )


def cost(scores_GK: Tensor, batch: Batch, config: RewardConfig, emphasis_G: Tensor) -> Cost:
    """Return what a batch costs one member, to which each prompt counts `emphasis_G`."""
    if config.loss == "plackett_luce":
        weights_R = emphasis_G[batch.prompt_R] * batch.weights_R
        loss = (weights_R * plackett_luce(scores_GK[batch.prompt_R], batch.ranks_RK)).sum()
        weight = weights_R.sum()
    else:
        shares_GKK = emphasis_G[:, None, None] * comparison_shares(batch.better_GKK, batch.mask_GK)
        loss = bradley_terry(
            scores_GK,
            shares_GKK,
            margins_GKK=batch.margins_GKK,
            label_smoothing=config.label_smoothing,
        ).sum()
        weight = shares_GKK.sum()
    if config.center_coefficient:
        loss = loss + config.center_coefficient * weight * centring(scores_GK, batch.mask_GK).mean()
    if config.length_decorrelation:
        correlation = length_correlation(scores_GK, batch.tokens_GK, batch.mask_GK)
        loss = loss + config.length_decorrelation * weight * correlation.square()
    with torch.no_grad():
        gap_GKK = scores_GK[:, :, None] - scores_GK[:, None, :]
        compared_GKK = batch.better_GKK > 0
        right = (((gap_GKK > 0) + 0.5 * (gap_GKK == 0)) * compared_GKK).sum()
    return Cost(loss, weight, right, compared_GKK.sum())


def train(
    reward: RewardModel,
    comparisons: Sequence[Comparison],
    config: RewardConfig,
    *,
    precision: Precision,
    seed: int,
) -> Iterator[StepMetrics]:
    """Train what requires a gradient, and tell of each step; the heads of an ensemble see different comparisons.

    Each head counts each prompt as often as a bootstrap sample of its own holds it: Poisson(1) times (Oza & Russell 2001).
    """
    parameters = [parameter for parameter in reward.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},  # norms and biases
        ],
        lr=config.learning_rate,
    )
    rates = get_cosine_schedule_with_warmup(
        optimizer, round(config.warmup_fraction * config.steps), config.steps
    )
    order = schedule(
        [[row] for row in range(len(comparisons))],
        [found.length for found in comparisons],
        batch_size=config.batch_size,
        steps=config.steps,
        seed=seed,
    )
    heads = reward.head.out_features
    emphasis_CM = torch.ones(len(comparisons), heads)
    if heads > 1:
        emphasis_CM = torch.poisson(emphasis_CM, generator=torch.Generator().manual_seed(seed))
    _leave_dropout_to_adapters(reward.model, checkpointing=config.gradient_checkpointing)
    for step in range(config.steps):
        rows = order[step * config.batch_size : (step + 1) * config.batch_size]
        found, tokens = _gradient(reward, comparisons, emphasis_CM, rows, config, precision)
        processes.add_up_gradients(reward.model)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= found.weight
        norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        metrics = {
            "loss": float(found.loss / found.weight),
            "accuracy": float(found.right / found.pairs),
            "grad_norm": float(norm),
            "learning_rate": float(rates.get_last_lr()[0]),
        }
        _check(metrics, step + 1)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rates.step()
        yield StepMetrics(
            step=step + 1, total=config.steps, metrics=metrics, tokens=tokens, gradient_tokens=tokens
        )
    reward.model.eval()


def _gradient(
    reward: RewardModel,
    comparisons: Sequence[Comparison],
    emphasis_CM: Tensor,
    rows: Sequence[int],
    config: RewardConfig,
    precision: Precision,
) -> tuple[Cost, int]:
    """Add the gradient of this process's share of a batch's summed loss; return the batch's cost and its real tokens."""
    device, size = reward.head.weight.device, config.micro_batch_size or config.batch_size
    size = min(size, math.ceil(len(rows) / processes.number()))
    nothing = torch.zeros((), device=device)
    total, tokens = Cost(nothing, nothing, nothing, nothing), 0
    for part in processes.dealt([rows[start : start + size] for start in range(0, len(rows), size)]):
        batch = collate([comparisons[row] for row in part], device)
        with autocast(precision):
            scores_NM = reward.scores(batch.ids_NL, batch.lengths_N)
        members = zip(scores_NM.T, emphasis_CM[part].to(device).T, strict=True)
        found = reduce(
            Cost.__add__,
            [cost(scores_N[batch.rows_GK], batch, config, emphasis_G) for scores_N, emphasis_G in members],
        )
        found.loss.backward()
        total += replace(found, loss=found.loss.detach())
        tokens += int(batch.lengths_N.sum())
    if processes.number() == 1:
        return total, tokens
    sums = processes.total(
        torch.stack([total.loss, total.weight, total.right, total.pairs, nothing + tokens])
    )
    return Cost(*sums[:4]), int(sums[4])


def _leave_dropout_to_adapters(model: nn.Module, *, checkpointing: bool) -> None:
    """Set the model to training, without the dropout of its trunk: preferences are few, and scores must not flicker."""
    model.train()
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and "lora_" not in name:
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    if checkpointing and isinstance(model, PreTrainedModel):
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()


def _check(metrics: dict[str, float], step: int) -> None:
    for name in ("loss", "grad_norm"):
        if not math.isfinite(metrics[name]):
            raise TrainingDiverged(
                f"{name} is {metrics[name]} at step {step}; wanted a finite number. "
                "Lower learning_rate or max_grad_norm, or use compute.precision=fp32."
            )
