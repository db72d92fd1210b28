"""The reward model: a trunk and a scalar head in the Hugging Face sequence-classification layout.

Legend: B sequences, L tokens, D hidden width.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from rlhf.models.loading import load_weights
from schemas.errors import ModelNotUsable

_MEAN, _STD = "rlhf_score_mean", "rlhf_score_std"


class Fp32Linear(nn.Linear):
    """A linear layer that stays fp32 inside autocast: bf16 scores would tie where they should not."""

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., D)` to `(..., 1)`."""
        with torch.autocast(input.device.type, enabled=False):
            return nn.functional.linear(
                input.float(), self.weight.float(), None if self.bias is None else self.bias.float()
            )


class RewardModel:
    """Scores sequences of token ids at their last real token."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Wrap a sequence-classification model with one label whose head is called `score`."""
        head = getattr(model, "score", None)
        if not isinstance(head, nn.Linear) or head.out_features != 1:
            raise ModelNotUsable(
                f"{type(model).__name__} has no linear head `score` with one output; "
                "wanted a decoder such as Llama or Qwen with num_labels=1."
            )
        if not isinstance(head, Fp32Linear):
            model.score = _in_fp32(head)
        self.model = model

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu") -> Self:
        """Load a saved reward model: fp32, evaluation mode."""
        config = Path(path) / "config.json"
        if config.is_file() and _MEAN not in json.loads(config.read_text(encoding="utf-8")):
            raise ModelNotUsable(
                f"{path} has no {_MEAN} in its config.json; wanted a model that the reward stage saved."
            )
        return cls(load_weights(Path(path), device, AutoModelForSequenceClassification, num_labels=1))

    @classmethod
    def from_policy(cls, path: str | Path, *, seed: int, device: str = "cpu") -> Self:
        """Start from a policy's trunk with a fresh head N(0, 1 / (D + 1)) (Stiennon et al. 2020)."""
        reward = cls(_with_scalar_head(load_weights(Path(path), device)))
        width = reward.head.in_features
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            reward.head.weight.copy_(torch.randn(1, width, generator=generator) / (width + 1) ** 0.5)
        return reward

    @property
    def backbone(self) -> PreTrainedModel:
        """The trunk: token ids to hidden states `(B, L, D)`."""
        return self.model.base_model  # type: ignore[return-value]  # nn.Module in the stubs

    @property
    def head(self) -> Fp32Linear:
        """The scalar head: hidden states `(..., D)` to scores `(..., 1)`."""
        head = self.model.score
        assert isinstance(head, Fp32Linear)
        return head

    @property
    def score_mean(self) -> float:
        """Mean raw score of SFT responses."""
        return float(getattr(self.model.config, _MEAN, 0.0))

    @property
    def score_std(self) -> float:
        """Standard deviation of the raw score of SFT responses."""
        return float(getattr(self.model.config, _STD, 1.0))

    def set_normalisation(self, *, mean: float, std: float) -> None:
        """Store what `normalised_scores` subtracts and divides by; it is saved in config.json."""
        setattr(self.model.config, _MEAN, mean)
        setattr(self.model.config, _STD, std)

    def save(self, folder: Path) -> None:
        """Write the weights and config.json; the tokenizer is the caller's to save."""
        self.model.save_pretrained(folder)

    @torch.no_grad()
    def raw_scores(self, ids: Sequence[Sequence[int]], *, batch_size: int = 32) -> Tensor:
        """Score each sequence at its last token `(B,)`; rows of similar length share a batch."""
        device = self.head.weight.device
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        scores_B = torch.empty(len(ids))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            scores_B[rows] = self._last_scores([ids[row] for row in rows], device).cpu()
        return scores_B

    def normalised_scores(self, ids: Sequence[Sequence[int]], *, batch_size: int = 32) -> Tensor:
        """Score with mean 0 and standard deviation 1 over SFT responses `(B,)`."""
        return (self.raw_scores(ids, batch_size=batch_size) - self.score_mean) / self.score_std

    def _last_scores(self, ids: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        lengths_B = torch.tensor([len(row) for row in ids], device=device)
        # What fills the right side does not matter: causal attention never looks there.
        input_ids_BL = nn.utils.rnn.pad_sequence(
            [torch.tensor(row, device=device) for row in ids], batch_first=True
        )
        mask_BL = torch.arange(input_ids_BL.shape[1], device=device) < lengths_B[:, None]
        hidden_BLD = self.backbone(
            input_ids=input_ids_BL, attention_mask=mask_BL, use_cache=False
        ).last_hidden_state
        scores: Tensor = self.head(hidden_BLD[torch.arange(len(ids), device=device), lengths_B - 1]).squeeze(
            -1
        )
        return scores


def _with_scalar_head(policy: PreTrainedModel) -> PreTrainedModel:
    """Put the trunk of a policy, itself and not a copy, under a head that holds no values yet."""
    policy.config.num_labels = 1
    try:
        with torch.device("meta"):  # the trunk that this builds is only a place for the real one
            model: PreTrainedModel = AutoModelForSequenceClassification.from_config(policy.config)
    except ValueError as error:
        raise ModelNotUsable(
            f"There is no reward model for a {type(policy).__name__}: {error}. "
            "Choose a decoder such as Llama or Qwen."
        ) from error
    trunk = policy.base_model
    if type(model.base_model) is not type(trunk):
        raise ModelNotUsable(
            f"{type(model).__name__} is built on a {type(model.base_model).__name__}, and the policy on a "
            f"{type(trunk).__name__}; wanted one trunk for both. Choose a decoder such as Llama or Qwen."
        )
    setattr(model, model.base_model_prefix, trunk)
    if isinstance(head := getattr(model, "score", None), nn.Module):
        head.to_empty(device=policy.device)
    model.eval()
    return model


def _in_fp32(head: nn.Linear) -> Fp32Linear:
    replacement = Fp32Linear(head.in_features, head.out_features, bias=head.bias is not None)
    replacement.load_state_dict(head.state_dict())
    return replacement.to(head.weight.device)
