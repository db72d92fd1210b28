"""Agreement of the policy with held-out preferences: watched while PPO runs, and never what it optimises.

The score is what the policy is pushed to please, so it rises also where the reward model is wrong (Gao et al.
2023). A second reward model shares many of the first one's errors (Coste et al. 2024; Eisenstein et al. 2024);
people's own comparisons share none, and cost one pass over their responses.

Shapes: P pairs, N prompts, R distinct responses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlhf.algorithms.agreement import change_in_standard_errors, choice_probabilities, mean_by_prompt
from rlhf.data.pairs import encode_pairs
from rlhf.models.precision import Precision, autocast
from rlhf.models.sampling import response_logprobs
from rlhf.training.actors import Actors
from rlhf.training.trained import Trained
from schemas.config import OnlineSection

if TYPE_CHECKING:
    import polars as pl


STALL_LOOKS = 2
"""Evaluations between the two that tell whether the agreement still rises."""


@dataclass(frozen=True, slots=True)
class Best:
    """The evaluation at which the policy agreed best with the held-out preferences."""

    iteration: int
    """Finished iterations; 0 is the policy before the first."""
    agreement_N: Tensor
    """By prompt."""
    weights: Mapping[str, Tensor]
    """Of the policy's trainable parameters; copies."""
    recent: tuple[Tensor, ...]
    """Agreement by prompt at the last evaluations, the newest last: at most `STALL_LOOKS`."""


class HeldOut:
    """The held-out pairs as token ids, with what the reference thinks of their responses."""

    def __init__(
        self, actors: Actors, preferences: pl.DataFrame, config: OnlineSection, precision: Precision
    ) -> None:
        """Encode at most `guard.num_pairs` of the preferences; raises DataRejected for a table without any."""
        self._actors, self._config, self._precision = actors, config, precision
        pairs = encode_pairs(
            actors.tokenizer,
            preferences.head(config.guard.num_pairs),
            max_length=int(actors.policy.config.max_position_embeddings),
        )
        numbers: dict[str, int] = {}
        rows: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}

        def row_of(prompt: list[int], response: list[int]) -> int:
            return rows.setdefault((tuple(prompt), tuple(response)), len(rows))

        self._prompt_P = torch.tensor([numbers.setdefault(pair.prompt_id, len(numbers)) for pair in pairs])
        self._weight_P = torch.tensor([pair.weight for pair in pairs])
        self._chosen_P = torch.tensor([row_of(pair.prompt, pair.chosen) for pair in pairs])
        self._rejected_P = torch.tensor([row_of(pair.prompt, pair.rejected) for pair in pairs])
        self._sequences = list(rows)
        with actors.reference() as reference:
            self._reference_R = self._logprobs(reference)

    def start(self, policy: Trained) -> Best:
        """Return the policy before its first step: it has no opinion, so each agreement is 0.5."""
        undecided_N = torch.full((int(self._prompt_P.max()) + 1,), 0.5)
        return Best(0, undecided_N, _copies(policy), (undecided_N,))

    def evaluate(self, policy: Trained, best: Best, iteration: int) -> tuple[dict[str, float], Best]:
        """Return what was measured after so many iterations, and the best evaluation with this one in mind."""
        ratio_R = self._logprobs(self._actors.policy) - self._reference_R
        agreement_P = choice_probabilities(ratio_R[self._chosen_P], ratio_R[self._rejected_P])
        agreement_N = mean_by_prompt(agreement_P, self._weight_P, self._prompt_P)
        metrics = {
            "agreement": agreement_N.mean().item(),
            "agreement_fall": max(0.0, -change_in_standard_errors(best.agreement_N, agreement_N)),
        }
        if len(best.recent) == STALL_LOOKS:
            metrics["agreement_rise"] = change_in_standard_errors(best.recent[0], agreement_N)
        recent = (*best.recent, agreement_N)[-STALL_LOOKS:]
        if agreement_N.mean() > best.agreement_N.mean():
            best = Best(iteration, agreement_N, _copies(policy), recent)
        else:
            best = replace(best, recent=recent)
        return metrics | {"best_iteration": float(best.iteration)}, best

    @torch.no_grad()
    def _logprobs(self, model: nn.Module) -> Tensor:
        """Return the log-probability of each distinct response (R,)."""
        with autocast(self._precision):
            of_tokens = response_logprobs(
                model,
                [prompt for prompt, _ in self._sequences],
                [response for _, response in self._sequences],
                temperature=self._config.temperature,
                pad_id=self._actors.pad_id,
                batch_size=self._config.micro_batch_size or self._config.minibatch_size,
            )
        return torch.stack([logprobs_T.sum() for logprobs_T in of_tokens])


def _copies(policy: Trained) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in policy.weights().items()}
