"""What the reference policy says of the pairs, computed once: every beta and every loss of DPO needs the same numbers.

Shapes: R response tokens of a batch's responses, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from rlhf.data.pairs import Pair, encode_pairs
from rlhf.models.batches import collate, response_logits
from rlhf.models.loading import load_policy
from rlhf.models.precision import Precision, apply, autocast
from rlhf.training.schedule import schedule
from rlhf.training.step import OnStep, StepMetrics
from schemas.config.aligners.dpo import PairUse

_TOKENS = 4096
"""Tokens of a forward pass, padding included."""

Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Prompt and response."""


def score_pairs(
    sft: Path,
    preferences: pl.DataFrame,
    uses: Sequence[PairUse],
    *,
    seed: int,
    precision: Precision,
    on_step: OnStep,
) -> pl.DataFrame:
    """Return the log-probabilities of both responses of each pair that is used, under the SFT policy (table `reference`).

    A use is answered with the pairs that its steps learn from, cut as `encode_pairs` cuts them.
    """
    apply(precision)
    model, tokenizer = load_policy(sft, device=precision.device)
    cut: dict[int, dict[int, Pair]] = {}
    for use in uses:
        pairs = encode_pairs(tokenizer, preferences, max_length=use.max_length)
        lengths = [pair.length for pair in pairs]
        units = [[row] for row in range(len(pairs))]
        order = schedule(units, lengths, batch_size=use.batch_size, steps=use.steps, seed=seed)
        used = {pairs[row].row: pairs[row] for row in sorted(set(order))}
        cut[use.max_length] = cut.get(use.max_length, {}) | used
    pad_id = tokenizer.pad_token_id
    assert isinstance(pad_id, int)  # load_policy checks it
    logprobs = score_rows(
        model,
        [row for one in cut.values() for row in rows_of(list(one.values()))],
        pad_id,
        precision,
        on_step,
    )
    return pl.DataFrame(
        [
            (length, pair.row, *(logprobs[row] for row in rows_of([pair])))
            for length, one in cut.items()
            for pair in one.values()
        ],
        schema={
            "max_length": pl.Int64,
            "row": pl.Int64,
            "chosen_logprob": pl.Float64,
            "rejected_logprob": pl.Float64,
        },
        orient="row",
    )


def rows_of(pairs: Sequence[Pair]) -> list[Row]:
    """Return the chosen and the rejected response of each pair, one after the other."""
    return [
        (tuple(pair.prompt), tuple(response)) for pair in pairs for response in (pair.chosen, pair.rejected)
    ]


@torch.no_grad()
def score_rows(
    model: PreTrainedModel,
    rows: Sequence[Row],
    pad_id: int,
    precision: Precision,
    on_step: OnStep,
) -> dict[Row, float]:
    """Return each distinct response's log-probability given its prompt, summed over its tokens, in nats.

    The distribution is over the whole vocabulary, as in TRL's losses, whose policy these are compared with.
    """
    distinct = sorted(set(rows), key=lambda row: (len(row[0]) + len(row[1]), row))
    batches = list(_batches(distinct))
    logprobs: dict[Row, float] = {}
    for number, part in enumerate(batches):
        prompts, responses = [list(prompt) for prompt, _ in part], [list(response) for _, response in part]
        batch = collate(prompts, responses, pad_id=pad_id, device=model.device)
        with autocast(precision):
            logits_RV = response_logits(model, batch)
        logprobs_R = -cross_entropy(logits_RV.float(), batch.tokens, reduction="none")
        logprobs |= zip(part, batch.spread(logprobs_R).sum(dim=1).tolist(), strict=True)
        tokens = sum(len(prompt) + len(response) for prompt, response in part)
        on_step(StepMetrics(step=number + 1, total=len(batches), metrics={}, tokens=tokens))
    return logprobs


def _batches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yield rows, sorted by length, as many at a time as fit into a forward pass."""
    part: list[Row] = []
    for row in rows:
        if part and (len(part) + 1) * (len(row[0]) + len(row[1])) > _TOKENS:
            yield part
            part = []
        part.append(row)
    if part:
        yield part
