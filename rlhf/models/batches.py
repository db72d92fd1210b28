"""Prompts and responses side by side: one layout for the policy, the reference and the critic.

Shapes: B responses, T response tokens, L prompt + response tokens, V vocabulary, D hidden width. Prompts are padded on the
left and responses on the right, so that all responses begin in one column and logits are computed there only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.algorithms.logprobs import policy_logits, token_logprobs
from rlhf.algorithms.masks import length_mask


@dataclass(frozen=True, slots=True)
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


def response_logits(model: nn.Module, batch: ResponseBatch, *, temperature: float, pad_id: int) -> Tensor:
    """Return the fp32 logits (B, T, V) of the distributions of the batch's response tokens."""
    return policy_logits(raw_logits(model, batch), temperature=temperature, pad_id=pad_id)


def score_tokens(model: nn.Module, batch: ResponseBatch, *, temperature: float, pad_id: int) -> Tensor:
    """Return the log-probabilities (B, T) of the batch's response tokens, in nats."""
    return token_logprobs(
        response_logits(model, batch, temperature=temperature, pad_id=pad_id), batch.responses_BT
    )


def raw_logits(model: nn.Module, batch: ResponseBatch) -> Tensor:
    """Return the model's own logits (B, T, V) where responses are, and nowhere else."""
    output = model(
        input_ids=batch.inputs_BL,
        attention_mask=batch.attention_BL,
        position_ids=batch.positions_BL,
        use_cache=False,
        logits_to_keep=batch.responses_BT.shape[1],
    )
    logits_BTV: Tensor = output.logits
    return logits_BTV


def logits_and_hidden(model: PreTrainedModel | PeftModel, batch: ResponseBatch) -> tuple[Tensor, Tensor]:
    """Return the model's own logits (B, T, V) and the hidden states (B, T, D) that they are computed from."""
    kept: list[Tensor] = []
    # What enters the output layer is the same thing in every architecture; the names on the way differ.
    with model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0])):
        logits_BTV = raw_logits(model, batch)
    return logits_BTV, kept[0]
