"""How a policy writes, from its responses alone: variety, repetition, lengths."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from schemas.evaluation import Wording

REPEATED = 4
"""Words in a row that count as a repetition when they come again."""


def describe(samples: pl.DataFrame) -> Wording:
    """Sum up a table `samples`; its `logprob` is taken at the sampling temperature."""
    words = [response.split() for response in samples["response"]]
    tokens = samples["tokens"].to_numpy()
    p10, p50, p90 = np.quantile(tokens, [0.1, 0.5, 0.9])
    return Wording(
        distinct_1=distinct(words, 1),
        distinct_2=distinct(words, 2),
        self_repetition=float(np.mean([repetition(response, REPEATED) for response in words])),
        # The policy's own tokens: the mean of -log p estimates the entropy without bias.
        entropy=float(-samples["logprob"].sum() / max(1, tokens.sum())),
        length_p10=float(p10),
        length_p50=float(p50),
        length_p90=float(p90),
    )


def distinct(responses: Sequence[Sequence[str]], n: int) -> float:
    """Return different n-grams / n-grams over all responses (Li et al. 2016); 1 where there is none."""
    found = [gram for response in responses for gram in _grams(response, n)]
    return len(set(found)) / len(found) if found else 1.0


def repetition(response: Sequence[str], n: int) -> float:
    """Return the share of a response's n-grams that it has said before (Welleck et al. 2019, seq-rep-n)."""
    found = _grams(response, n)
    return 1 - len(set(found)) / len(found) if found else 0.0


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
