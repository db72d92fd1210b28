"""Which prompts are worth a rater's time: new ones, and those on which a reward ensemble cannot agree.

Query by committee (Seung et al. 1992) on comparisons: the members of the ensemble are the committee, and how much
their probabilities of a comparison differ is how much there is to learn from asking.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from rlhf.models.precision import Precision

Floats = npt.NDArray[np.float64]


def next_prompts(prompts: pl.DataFrame, asked: Sequence[pl.DataFrame], number: int) -> pl.DataFrame:
    """Return up to `number` prompts in their order: those that nobody was asked about first, then the longest ago."""
    last_round = {
        prompt_id: place for place, table in enumerate(asked, start=1) for prompt_id in table["prompt_id"]
    }
    when = [last_round.get(prompt_id, 0) for prompt_id in prompts["prompt_id"]]
    order = sorted(range(prompts.height), key=lambda row: when[row])  # stable: equal ones stay in order
    return prompts[order[:number]]


def doubts(reward: Path, candidates: pl.DataFrame, *, batch_size: int, precision: "Precision") -> list[float]:
    """Return how much the members of a saved reward ensemble disagree on each row's responses."""
    from rlhf.models.loading import load_tokenizer
    from rlhf.models.precision import autocast
    from rlhf.models.reward import RewardModel

    model, tokenizer = RewardModel.load(reward, device=precision.device), load_tokenizer(reward)
    with autocast(precision):
        scores = model.member_scores(encode(tokenizer, candidates), batch_size=batch_size).double().numpy()
    ends = np.cumsum(candidates["responses"].list.len().to_numpy())
    return [doubt(of_prompt) for of_prompt in np.split(scores, ends[:-1])]


def encode(tokenizer: "PreTrainedTokenizerFast", candidates: pl.DataFrame) -> list[list[int]]:
    """Return each prompt with each of its responses as ids, row by row."""
    from rlhf.data.chat import encode_prompt, encode_response

    return [
        encode_prompt(tokenizer, prompt) + encode_response(tokenizer, text, finished=ended)
        for prompt, responses, finished in candidates.select("prompt", "responses", "finished").iter_rows()
        for text, ended in zip(responses, finished, strict=True)
    ]


def doubt(scores: Floats) -> float:
    """Return how much the members disagree on one prompt's responses; `scores` is (responses, members).

    The mean over all two responses of the deviation, between members, of sigmoid(score difference): 0 when all give
    each comparison the same probability, 1/2 at most. What a member adds to every score cancels.
    """
    left, right = np.triu_indices(scores.shape[0], k=1)
    probabilities = 1 / (1 + np.exp(-(scores[left] - scores[right])))
    return float(probabilities.std(axis=1).mean())


def most_doubtful(candidates: pl.DataFrame, doubts: Sequence[float], number: int) -> pl.DataFrame:
    """Return the `number` rows with the largest doubts, in their own order; of equal ones the earlier."""
    order = sorted(range(candidates.height), key=lambda row: -doubts[row])
    return candidates[sorted(order[:number])]
