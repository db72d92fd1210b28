"""Held-out pairs as a reward model sees them: both scores, both lengths, and how far its members agree."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from rlhf.algorithms.ensembles import disagreement
from rlhf.data.pairs import encode_pairs
from rlhf.evaluation.intervals import wilson
from rlhf.models.foreign_reward import ForeignRewardModel
from rlhf.models.loading import load_tokenizer
from rlhf.models.precision import Precision, autocast
from rlhf.models.reward import RewardModel
from schemas.errors import DataRejected
from schemas.record import Interval


def judge_pairs(
    reward: Path, preferences: pl.DataFrame, *, max_length: int, batch_size: int, precision: Precision
) -> pl.DataFrame:
    """Return the pairs that differ once cut, with `chosen_score`, `rejected_score` (normalised, the members' mean).

    `gap` is chosen minus rejected in units of the loss, log odds; `chosen_tokens` and `rejected_tokens` are lengths after the
    cut; `disagreement` is the members' standard deviation of the difference of their scores. Other columns stay.
    """
    model, tokenizer = RewardModel.load(reward, device=precision.device), load_tokenizer(reward)
    pairs = encode_pairs(tokenizer, preferences, max_length=max_length)
    ids = [pair.prompt + response for pair in pairs for response in (pair.chosen, pair.rejected)]
    with torch.no_grad(), autocast(precision):
        raw_BM = model.member_scores(ids, batch_size=batch_size).double()
    return _judged(
        preferences[[pair.row for pair in pairs]],
        raw_BM,
        model.normalise(raw_BM),
        [(len(pair.chosen), len(pair.rejected)) for pair in pairs],
    )


def judge_pairs_elsewhere(
    reward: Path, preferences: pl.DataFrame, *, max_length: int, batch_size: int, precision: Precision
) -> pl.DataFrame:
    """Do the same with a sequence-classification model of other origin, whose scores are taken as they are."""
    model = ForeignRewardModel.load(reward, device=precision.device)
    encodings = [
        tuple(
            model.encode(row["prompt"], row[side], max_length=max_length) for side in ("chosen", "rejected")
        )
        for row in preferences.iter_rows(named=True)
    ]
    rows = [row for row, (chosen, rejected) in enumerate(encodings) if chosen != rejected]
    if not rows:
        raise DataRejected(
            f"None of the {preferences.height} preferences differ within max_length={max_length} tokens; raise it."
        )
    with torch.no_grad(), autocast(precision):
        raw_BM = model.raw_scores(
            [side for row in rows for side in encodings[row]], batch_size=batch_size
        ).double()[:, None]
    tokens = [tuple(len(side["input_ids"]) for side in encodings[row]) for row in rows]
    return _judged(preferences[rows], raw_BM, raw_BM, tokens)


def _judged(
    preferences: pl.DataFrame, raw_BM: Tensor, scores_BM: Tensor, tokens: Sequence[tuple[int, ...]]
) -> pl.DataFrame:
    """Add what was found to the pairs; chosen and rejected take turns in the scores."""
    raw_gap_PM = raw_BM[::2] - raw_BM[1::2]
    chosen_PM, rejected_PM = scores_BM[::2], scores_BM[1::2]
    return preferences.with_columns(
        pl.Series("chosen_score", chosen_PM.mean(dim=1).tolist(), pl.Float64),
        pl.Series("rejected_score", rejected_PM.mean(dim=1).tolist(), pl.Float64),
        pl.Series("gap", raw_gap_PM.mean(dim=1).tolist(), pl.Float64),
        pl.Series("disagreement", disagreement(chosen_PM - rejected_PM).tolist(), pl.Float64),
        pl.Series("chosen_tokens", [chosen for chosen, _ in tokens], pl.Int64),
        pl.Series("rejected_tokens", [rejected for _, rejected in tokens], pl.Int64),
    )


def won(judged: pl.DataFrame, chosen: str = "chosen_score", rejected: str = "rejected_score") -> pl.Series:
    """Return per pair 1 where the chosen response has more, 0 where it has less, and half for a tie."""
    left, right = judged[chosen], judged[rejected]
    return (left > right).cast(pl.Float64) + 0.5 * (left == right).cast(pl.Float64)


def accuracy(judged: pl.DataFrame, confidence: float = 0.95) -> Interval:
    """Return the share of pairs whose chosen response scores higher."""
    return wilson(float(won(judged).sum()), judged.height, confidence)


def longer_accuracy(judged: pl.DataFrame, confidence: float = 0.95) -> Interval:
    """Return the share of pairs whose chosen response is the longer one: what the model must beat."""
    return wilson(float(won(judged, "chosen_tokens", "rejected_tokens").sum()), judged.height, confidence)
