"""Prompts and responses side by side: one layout for the policy, the reference and the critic.

Shapes: B responses, T response tokens, L prompt + response tokens, R response tokens of all responses together, V vocabulary,
D hidden width. Prompts are padded on the left and responses on the right, so that all responses begin in one column. Models
that can read the same without its padding, in one packed row. Logits are computed where responses are, and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.algorithms.logprobs import token_logprobs
from rlhf.algorithms.masks import length_mask
from rlhf.models.packing import Packed, filled_up, pack, packs


@dataclass(frozen=True)
class ResponseBatch:
    """Prompts with their responses; the last T input columns are the states of the T choices."""

    inputs_BL: Tensor
    """What the model reads: all but the last response column, which nothing is predicted from."""
    attention_BL: Tensor
    """1 where a real token is."""
    positions_BL: Tensor
    """Counted from the first real token, so that left padding shifts no learned position."""
    responses_BT: Tensor
    mask_BT: Tensor
    """True where a response token is."""

    @cached_property
    def packed(self) -> Packed:
        """The inputs without their padding."""
        return pack(self.inputs_BL, self.attention_BL)

    @cached_property
    def states(self) -> Tensor:
        """Places (R and fillings,) in the packed row of the states in which the response tokens were chosen."""
        places_BL = self.attention_BL.flatten().cumsum(0).view_as(self.attention_BL) - 1
        return filled_up(places_BL[:, -self.mask_BT.shape[1] :][self.mask_BT])

    @cached_property
    def tokens(self) -> Tensor:
        """The response tokens (R,), end to end."""
        return self.responses_BT[self.mask_BT]

    def inputs_of(self, model: nn.Module) -> dict[str, Any]:
        """Return the arguments of a forward pass, packed for a model that can read that."""
        if packs(model):
            return self.packed.inputs()
        return {
            "input_ids": self.inputs_BL,
            "attention_mask": self.attention_BL,
            "position_ids": self.positions_BL,
            "use_cache": False,
        }

    def columns_of(self, model: nn.Module) -> Tensor:
        """Return the columns of those inputs whose outputs matter."""
        if packs(model):
            return self.states
        width, num_tokens = self.inputs_BL.shape[1], self.mask_BT.shape[1]
        return torch.arange(width - num_tokens, width, device=self.inputs_BL.device)

    def flat(self, output: Tensor) -> Tensor:
        """Return (R, ...) of the output (B, T, ...) of those columns, or (1, R and fillings, ...) of packed ones."""
        packed = output.shape[:2] != self.mask_BT.shape
        return output[0, : len(self.tokens)] if packed else output[self.mask_BT]

    def spread(self, values_R: Tensor) -> Tensor:
        """Return the values (B, T) of the response tokens, 0 in the padding."""
        return values_R.new_zeros(self.mask_BT.shape).masked_scatter(self.mask_BT, values_R)


def pad_left(
    sequences: Sequence[Sequence[int]], *, pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return ids and attention (B, L) with the padding in front."""
    width = max(len(ids) for ids in sequences)
    ids_BL = torch.tensor([[pad_id] * (width - len(ids)) + list(ids) for ids in sequences], device=device)
    lengths_B = torch.tensor([len(ids) for ids in sequences], device=device)
    return ids_BL, length_mask(lengths_B, width).flip(1).long()


def positions(attention_BL: Tensor) -> Tensor:
    """Return positions (B, L) counted from each row's first real token."""
    return (attention_BL.cumsum(dim=1) - 1).clamp(min=0)


def collate(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], *, pad_id: int, device: torch.device
) -> ResponseBatch:
    """Lay out prompts and non-empty responses; masks come from lengths, never from ids."""
    prompt_ids_BP, prompt_attention_BP = pad_left(prompts, pad_id=pad_id, device=device)
    width = max(len(ids) for ids in responses)
    responses_BT = torch.tensor(
        [list(ids) + [pad_id] * (width - len(ids)) for ids in responses], device=device
    )
    mask_BT = length_mask(torch.tensor([len(ids) for ids in responses], device=device), width)
    attention_BL = torch.cat([prompt_attention_BP, mask_BT[:, :-1].long()], dim=1)
    return ResponseBatch(
        inputs_BL=torch.cat([prompt_ids_BP, responses_BT[:, :-1]], dim=1),
        attention_BL=attention_BL,
        positions_BL=positions(attention_BL),
        responses_BT=responses_BT,
        mask_BT=mask_BT,
    )


def score_tokens(model: nn.Module, batch: ResponseBatch, *, temperature: float, pad_id: int) -> Tensor:
    """Return the log-probabilities (B, T) of the batch's response tokens, in nats; 0 in the padding."""
    logits_RV = response_logits(model, batch)
    return batch.spread(token_logprobs(logits_RV, batch.tokens, temperature=temperature, pad_id=pad_id))


def response_logits(model: nn.Module, batch: ResponseBatch) -> Tensor:
    """Return the model's own logits (R, V) of the distributions of the response tokens, end to end."""
    output = model(**batch.inputs_of(model), logits_to_keep=batch.columns_of(model))
    return batch.flat(output.logits)


def logits_and_hidden(model: PreTrainedModel | PeftModel, batch: ResponseBatch) -> tuple[Tensor, Tensor]:
    """Return the model's own logits (R, V) and the hidden states (R, D) that they are computed from."""
    kept: list[Tensor] = []
    # What enters the output layer is the same thing in every architecture; the names on the way differ.
    with model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0])):
        logits_RV = response_logits(model, batch)
    return logits_RV, batch.flat(kept[0])
