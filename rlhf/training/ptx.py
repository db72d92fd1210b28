"""PPO-ptx: the loss of supervised examples mixed into PPO's own (Ouyang et al. 2022, eq. 2, last term).

    objective + ptx.coef * E log policy(example)

The mean is over tokens, as PPO's own losses are, so the coefficient weighs a token of the one against a token of the other.
Shapes: B examples, R response tokens of all of them together, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from rlhf.data.chat import encode_prompt, encode_response
from rlhf.models.batches import collate, response_logits
from rlhf.models.precision import Precision, autocast
from rlhf.training import processes
from rlhf.training.actors import Actors
from rlhf.training.rollout import generator_for
from schemas.config import OnlineSection, PPOConfig, PTXConfig
from schemas.errors import DataRejected

if TYPE_CHECKING:
    import polars as pl

Row = tuple[list[int], list[int]]
"""What is read, and what is learnt after it; neither is empty."""


@dataclass(frozen=True, slots=True)
class Mix:
    """The examples, and how much they weigh."""

    rows: Sequence[Row]
    config: PTXConfig
    seed: int

    @classmethod
    def of(
        cls,
        config: OnlineSection,
        tokenizer: PreTrainedTokenizerFast,
        table: pl.DataFrame | None,
        *,
        seed: int,
    ) -> Mix | None:
        """Return what a section mixes in; None where it mixes nothing."""
        if not isinstance(config, PPOConfig) or config.ptx is None or table is None:
            return None
        return cls.encode(tokenizer, table, config.ptx, seed=seed)

    @classmethod
    def encode(
        cls, tokenizer: PreTrainedTokenizerFast, table: pl.DataFrame, config: PTXConfig, *, seed: int
    ) -> Mix:
        """Encode demonstrations (prompt, response) or raw documents (text), cut to `max_length` tokens."""
        pairs = (
            [
                (encode_prompt(tokenizer, row["prompt"]), encode_response(tokenizer, row["response"]))
                for row in table.iter_rows(named=True)
            ]
            if "response" in table.columns
            else [(ids[:1], ids[1:]) for ids in (encode_response(tokenizer, text) for text in table["text"])]
        )
        cut = [(prompt, response[: max(config.max_length - len(prompt), 0)]) for prompt, response in pairs]
        rows = [(prompt, response) for prompt, response in cut if prompt and response]
        if not rows:
            raise DataRejected(
                f"None of the {table.height} rows to mix in leaves a token to learn within ptx.max_length="
                f"{config.max_length}; raise it, or choose another ptx.source."
            )
        return cls(rows, config, seed)

    def accumulate(self, actors: Actors, precision: Precision, *, step: int) -> dict[str, float]:
        """Add the gradient of an optimizer step's examples; return their mean loss per token, in nats, and their tokens."""
        batch_size = min(self.config.batch_size, len(self.rows))
        order = generator_for(self.seed, "ptx", step)
        drawn = [
            self.rows[row] for row in torch.randperm(len(self.rows), generator=order)[:batch_size].tolist()
        ]
        num_tokens = sum(len(response) for _, response in drawn)
        total = torch.zeros((), device=actors.device)
        if mine := processes.dealt(drawn):
            loss = _summed_loss(actors, mine, precision) / num_tokens
            (self.config.coef * loss).backward()
            total = loss.detach()
        read = sum(len(prompt) for prompt, _ in drawn) + num_tokens
        return {"ptx_loss": processes.total(total).item(), "ptx_tokens": float(read)}


def _summed_loss(actors: Actors, rows: Sequence[Row], precision: Precision) -> Tensor:
    """Return -log policy, summed over the tokens to learn; over the whole vocabulary, as in supervised fine-tuning."""
    batch = collate(
        [prompt for prompt, _ in rows],
        [response for _, response in rows],
        pad_id=actors.pad_id,
        device=actors.device,
    )
    with autocast(precision):
        logits_RV = response_logits(actors.policy, batch)
    return cross_entropy(logits_RV.float(), batch.tokens, reduction="sum")
