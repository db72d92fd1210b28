"""All that is known about the responses to one prompt as one example: each response once, however often it is compared.

Shapes: N responses of a batch, L tokens, G prompts, K responses of a prompt (padded), R rankings.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import polars as pl
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from rlhf.data.chat import encode_prompt, encode_response
from rlhf.data.pairs import Pair
from rlhf.models.reward import pad_right

MAX_RESPONSES = 16
"""Of one example; a prompt with more compared responses gives several examples, so that no step explodes."""


@dataclass(slots=True)
class Comparison:
    """A prompt, its different responses, and what was said about them."""

    prompt: list[int]
    responses: list[list[int]] = field(default_factory=list)
    """Token ids, cut; no two are the same."""
    pairs: list[tuple[int, int, float, float]] = field(default_factory=list)
    """(better, worse, weight, margin), by place in `responses`."""
    rankings: list[tuple[list[int], float]] = field(default_factory=list)
    """(rank of each response, weight); 1 is best, equal ranks are ties, 0 was not ranked."""

    @property
    def length(self) -> int:
        """Tokens of the prompt with the longest response."""
        return len(self.prompt) + max(map(len, self.responses))

    def place(self, response: list[int]) -> int:
        """Return the place of a response, which is added if it is new."""
        if response not in self.responses:
            self.responses.append(response)
        return self.responses.index(response)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some comparisons as tensors; the forward pass is over N rows, the losses are over G x K scores."""

    ids_NL: Tensor
    lengths_N: Tensor
    rows_GK: Tensor
    """Row of each response; 0 in the padding."""
    mask_GK: Tensor
    """True where a response is."""
    tokens_GK: Tensor
    """Response tokens."""
    better_GKK: Tensor
    """Weight with which one response is preferred to another; 0: not compared."""
    margins_GKK: Tensor
    prompt_R: Tensor
    """Which of the G prompts a ranking is of."""
    ranks_RK: Tensor
    """0: not ranked."""
    weights_R: Tensor


def from_pairs(pairs: Iterable[Pair]) -> list[Comparison]:
    """Gather pairs by prompt; several votes on two responses add up in weight."""
    full: list[Comparison] = []
    open_for: dict[str, Comparison] = {}
    for pair in pairs:
        found = open_for.get(pair.prompt_id)
        if found is None or len(found.responses) > MAX_RESPONSES - 2:
            found = open_for[pair.prompt_id] = Comparison(pair.prompt)
            full.append(found)
        better, worse = found.place(pair.chosen), found.place(pair.rejected)
        found.pairs.append((better, worse, pair.weight, pair.margin))
    for found in full:  # a pair is a ranking of two
        found.rankings = [
            (_spread({better: 1, worse: 2}, len(found.responses)), weight)
            for better, worse, weight, _ in found.pairs
        ]
    return full


def from_rankings(
    tokenizer: PreTrainedTokenizerFast,
    rankings: pl.DataFrame,
    rater_weights: Mapping[str, float],
    *,
    max_length: int,
) -> list[Comparison]:
    """Encode rankings, cut to `max_length` tokens; those of several raters on the same responses become one example.

    Responses that the cut makes equal are one: its rank is the common one, or none where they were ranked apart.
    A rater who is not in `rater_weights` counts 1; one of weight 0 counts nothing.
    """
    found: dict[tuple[str, tuple[str, ...]], Comparison] = {}
    for row in rankings.iter_rows(named=True):
        weight = rater_weights.get(row["rater"], 1.0)
        if weight <= 0:
            continue
        key = row["prompt_id"], tuple(row["responses"])
        if key not in found:
            found[key] = Comparison(encode_prompt(tokenizer, row["prompt"]))
        known = found[key]
        room = max(max_length - len(known.prompt), 0)
        ranks: dict[int, int] = {}
        for text, finished, rank in zip(row["responses"], row["finished"], row["ranks"], strict=True):
            place = known.place(encode_response(tokenizer, text, finished=finished)[:room])
            ranks[place] = _common(ranks.get(place, rank or 0), rank or 0)
        if sum(rank > 0 for rank in ranks.values()) > 1:
            known.rankings.append((_spread(ranks, len(known.responses)), weight))
    useful = [known for known in found.values() if known.rankings]
    for known in useful:
        known.pairs = [
            (left, right, weight, 0.0) if ranks[left] < ranks[right] else (right, left, weight, 0.0)
            for ranks, weight in known.rankings
            for left, right in combinations(range(len(ranks)), 2)
            if ranks[left] and ranks[right] and ranks[left] != ranks[right]
        ]
    return useful


def _common(before: int, rank: int) -> int:
    return rank if rank == before else 0


def _spread(ranks: Mapping[int, int], size: int) -> list[int]:
    return [ranks.get(place, 0) for place in range(size)]


def collate(comparisons: Sequence[Comparison], device: torch.device) -> Batch:
    """Lay out comparisons, each distinct response in one row."""
    size = max(len(found.responses) for found in comparisons)
    shape = len(comparisons), size
    rows_GK, tokens_GK = torch.zeros(shape, dtype=torch.long), torch.zeros(shape)
    mask_GK = torch.zeros(shape, dtype=torch.bool)
    better_GKK, margins_GKK = torch.zeros(*shape, size), torch.zeros(*shape, size)
    sequences: list[list[int]] = []
    rankings: list[tuple[int, list[int], float]] = []
    for number, found in enumerate(comparisons):
        count = len(found.responses)
        rows_GK[number, :count] = torch.arange(len(sequences), len(sequences) + count)
        mask_GK[number, :count] = True
        tokens_GK[number, :count] = torch.tensor([float(len(response)) for response in found.responses])
        sequences += [found.prompt + response for response in found.responses]
        for better, worse, weight, margin in found.pairs:
            better_GKK[number, better, worse] += weight
            margins_GKK[number, better, worse] = margin
        rankings += [(number, ranks, weight) for ranks, weight in found.rankings]
    ids_NL, lengths_N = pad_right(sequences, device)
    ranks_RK = torch.tensor([ranks + [0] * (size - len(ranks)) for _, ranks, _ in rankings])
    return Batch(
        ids_NL=ids_NL,
        lengths_N=lengths_N,
        rows_GK=rows_GK.to(device),
        mask_GK=mask_GK.to(device),
        tokens_GK=tokens_GK.to(device),
        better_GKK=better_GKK.to(device),
        margins_GKK=margins_GKK.to(device),
        prompt_R=torch.tensor([number for number, _, _ in rankings], device=device),
        ranks_RK=ranks_RK.to(device),
        weights_R=torch.tensor([weight for _, _, weight in rankings], device=device),
    )
