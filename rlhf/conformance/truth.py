"""The suite's own numbers, one sequence at a time, without padding, cache, batch or temperature but the one that is meant."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification


def policy(folder: Path) -> nn.Module:
    """Load a policy: fp32, evaluation mode."""
    model: nn.Module = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    return model.eval()


@torch.no_grad()
def logprobs(
    model: nn.Module,
    prompt: Sequence[int],
    response: Sequence[int],
    *,
    temperature: float = 1.0,
    never: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return log-probability and entropy (T,) at each token of a response; `never` is an id that cannot be drawn."""
    chosen, entropies = [], []
    for t, token in enumerate(response):
        ids = torch.tensor([[*prompt, *response[:t]]])
        logits_V = model(input_ids=ids).logits[0, -1].double() / temperature
        if never is not None:
            logits_V[never] = -torch.inf
        logprobs_V = logits_V.log_softmax(0)
        chosen.append(logprobs_V[token])
        entropies.append(torch.special.entr(logprobs_V.exp()).sum())
    return torch.stack(chosen).float(), torch.stack(entropies).float()


@torch.no_grad()
def scores(folder: Path, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Return the scores (B,) of a sequence-classification model at each sequence's last token."""
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    ).eval()
    rows = [
        model.score(model.base_model(input_ids=torch.tensor([list(ids)])).last_hidden_state[0, -1])
        for ids in sequences
    ]
    return torch.cat(rows)
