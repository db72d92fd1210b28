"""The reward model: a trunk and a scalar head in the Hugging Face sequence-classification layout.

Legend: B sequences, L tokens, D hidden width, M members of an ensemble.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from peft import PeftModel
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from rlhf.algorithms.ensembles import combine
from rlhf.algorithms.masks import length_mask
from rlhf.models.adapters import TRUNK, adapter_name, load_adapters, save_adapters, saved_adapters
from rlhf.models.loading import attach_lora, load_weights, merge, peft_config
from rlhf.models.packing import pack, packs
from schemas.config.models import LoraConfig
from schemas.config.reward import EnsembleScoring
from schemas.errors import ModelNotUsable

_MEAN, _STD = "rlhf_score_mean", "rlhf_score_std"


class Fp32Linear(nn.Linear):
    """A linear layer that stays fp32 inside autocast: bf16 scores would tie where they should not."""

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., D)` to `(..., M)`."""
        with torch.autocast(input.device.type, enabled=False):
            return nn.functional.linear(
                input.float(), self.weight.float(), None if self.bias is None else self.bias.float()
            )


class RewardModel:
    """Scores sequences of token ids at their last real token; an ensemble has several members on one trunk."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        adapted: PeftModel | None = None,
        scoring: EnsembleScoring | None = None,
    ) -> None:
        """Wrap a sequence-classification model whose head is called `score`, with one output per member.

        Or its members are the adapters that `adapted` has put on this very model, each with a head of its own.
        """
        head = getattr(model, "score", None)
        if not isinstance(head, nn.Linear) and adapted is None:
            raise ModelNotUsable(
                f"{type(model).__name__} has no linear head `score`; "
                "wanted a decoder such as Llama or Qwen with num_labels=1."
            )
        if isinstance(head, nn.Linear) and not isinstance(head, Fp32Linear):
            model.score = _in_fp32(head)
        self.model = model
        self.adapted = adapted
        self.scoring = scoring or EnsembleScoring()

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu", scoring: EnsembleScoring | None = None) -> Self:
        """Load a saved reward model: fp32, evaluation mode."""
        folder = Path(path)
        adapters = saved_adapters(folder)
        trunk = folder / TRUNK if adapters else folder
        if (heads := saved_members(trunk)) == 0:
            raise ModelNotUsable(
                f"{path} has no {_MEAN} in its config.json; wanted a model that the reward stage saved."
            )
        model = load_weights(
            trunk, device, AutoModelForSequenceClassification, num_labels=1 if adapters else heads
        )
        reward = cls(model, scoring=scoring)
        if adapters:
            reward.adapted = load_adapters(reward.model, adapters)
        return reward

    @classmethod
    def from_policy(cls, path: str | Path, *, seed: int, device: str = "cpu", heads: int = 1) -> Self:
        """Start from a policy's trunk with fresh heads N(0, 1 / (D + 1)) (Stiennon et al. 2020)."""
        reward = cls(_with_scalar_head(load_weights(Path(path), device), heads))
        width = reward.head.in_features
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            reward.head.weight.copy_(torch.randn(heads, width, generator=generator) / (width + 1) ** 0.5)
        return reward

    def add_adapter(self, config: LoraConfig) -> None:
        """Add a member that is a fresh adapter with a fresh head, drawn from the global generator; only it is trained."""
        name = adapter_name(len(self.adapted.peft_config) if self.adapted else 0)
        if self.adapted is None:
            self.adapted = attach_lora(self.model, config, "SEQ_CLS", name=name)
        else:
            self.adapted.add_adapter(name, peft_config(config, "SEQ_CLS"))
        self.adapted.set_adapter(name)
        nn.init.normal_(self.head.weight, std=(self.head.in_features + 1) ** -0.5)

    @property
    def backbone(self) -> PreTrainedModel:
        """The trunk: token ids to hidden states `(B, L, D)`."""
        return self.model.base_model  # type: ignore[return-value]  # nn.Module in the stubs

    @property
    def head(self) -> Fp32Linear:
        """The head: hidden states `(..., D)` to scores `(..., M)`; with adapters, that of the active one."""
        head = self.model.get_submodule("score")
        if isinstance(head, ModulesToSaveWrapper):
            head = head.modules_to_save[head.active_adapters[0]]
        assert isinstance(head, Fp32Linear)
        return head

    @property
    def members(self) -> int:
        """Members of the ensemble; 1: a single reward model."""
        return len(self.adapted.peft_config) if self.adapted else self.head.out_features

    @property
    def score_mean(self) -> float:
        """Mean raw score of SFT responses, on average over the members."""
        return float(self._statistic(_MEAN, 0.0).mean())

    @property
    def score_std(self) -> float:
        """Standard deviation of the raw score of SFT responses, on average over the members."""
        return float(self._statistic(_STD, 1.0).mean())

    def set_normalisation(self, *, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        """Store what `normalised_scores` subtracts and divides by (one value per member); it is saved in config.json."""
        for name, value in ((_MEAN, mean), (_STD, std)):
            setattr(self.model.config, name, value if isinstance(value, float) else list(value))

    def save(self, folder: Path) -> None:
        """Write the weights and config.json; the tokenizer is the caller's to save."""
        if self.adapted:
            save_adapters(self.adapted, folder)
        else:
            self.model.save_pretrained(folder)

    def scores(self, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Return the raw scores (B, M) at each row's last token, as told by the lengths; differentiable.

        With adapters it is the active one's score (B, 1). What fills the right side does not matter: causal attention never looks there.
        """
        attention_BL = length_mask(lengths_B, ids_BL.shape[1])
        if packs(self.model):
            packed = pack(ids_BL, attention_BL)
            hidden_1ND = self.backbone(**packed.inputs()).last_hidden_state
            last_BD = hidden_1ND[0, lengths_B.cumsum(0) - 1]
        else:
            hidden_BLD = self.backbone(
                input_ids=ids_BL, attention_mask=attention_BL, use_cache=False
            ).last_hidden_state
            last_BD = hidden_BLD[torch.arange(len(ids_BL), device=ids_BL.device), lengths_B - 1]
        scores_BM: Tensor = self.head(last_BD)
        return scores_BM

    @torch.no_grad()
    def member_scores(self, ids: Sequence[Sequence[int]], *, batch_size: int = 32) -> Tensor:
        """Return each member's raw score of each sequence `(B, M)`; rows of similar length share a batch."""
        device = self.head.weight.device
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        scores_BM = torch.empty(len(ids), self.members)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            padded_BL, lengths_B = pad_right([ids[row] for row in rows], device)
            scores_BM[rows] = self._all_members(padded_BL, lengths_B).cpu()
        return scores_BM

    def _all_members(self, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        if self.adapted is None:
            return self.scores(ids_BL, lengths_B)
        members = []
        for name in self.adapted.peft_config:
            self.adapted.set_adapter(name, inference_mode=True)
            members.append(self.scores(ids_BL, lengths_B))
        return torch.cat(members, dim=1)

    def raw_scores(self, ids: Sequence[Sequence[int]], *, batch_size: int = 32) -> Tensor:
        """Score each sequence at its last token `(B,)`, on average over the members."""
        return self.member_scores(ids, batch_size=batch_size).mean(dim=1)

    def normalised_members(self, ids: Sequence[Sequence[int]], *, batch_size: int = 32) -> Tensor:
        """Return each member's score `(B, M)`, of mean 0 and standard deviation 1 over SFT responses."""
        return self.normalise(self.member_scores(ids, batch_size=batch_size))

    def normalise(self, raw_BM: Tensor) -> Tensor:
        """Return raw scores (B, M) less each member's stored mean, in units of its stored standard deviation."""
        return (raw_BM - self._statistic(_MEAN, 0.0)) / self._statistic(_STD, 1.0)

    def normalised_scores(self, ids: Sequence[Sequence[int]], *, batch_size: int = 32) -> Tensor:
        """Return one score per sequence `(B,)`: the members' normalised ones, combined as `scoring` says."""
        return combine(
            self.normalised_members(ids, batch_size=batch_size),
            how=self.scoring.combine,
            variance_coef=self.scoring.variance_coef,
            std_coef=self.scoring.std_coef,
        )

    def as_single(self) -> "RewardModel":
        """Return a single model to start a critic from: the mean of the heads, or the first adapter, merged.

        It shares this one's trunk; of an ensemble its scores are normalised already.
        """
        if self.members == 1:
            return self
        mean_M, std_M = self._statistic(_MEAN, 0.0), self._statistic(_STD, 1.0)
        if self.adapted:
            self.adapted.set_adapter(next(iter(self.adapted.peft_config)), inference_mode=True)
            single = RewardModel(merge(self.adapted))
            single.set_normalisation(mean=float(mean_M[0]), std=float(std_M[0]))
            return single
        weight_MD = self.head.weight.detach() / std_M[:, None].to(self.head.weight.device)
        folded = Fp32Linear(self.head.in_features, 1, device=weight_MD.device)
        with torch.no_grad():
            folded.weight.copy_(weight_MD.mean(dim=0, keepdim=True))
            folded.bias.fill_(-float((mean_M / std_M).mean()))
        self.model.score = folded
        self.model.config.num_labels = 1
        self.set_normalisation(mean=0.0, std=1.0)
        return self

    def _statistic(self, name: str, otherwise: float) -> Tensor:
        stored = getattr(self.model.config, name, otherwise)
        return torch.tensor(stored if isinstance(stored, list) else [stored])


def is_ours(folder: Path) -> bool:
    """Tell whether a folder holds a reward model that the reward stage saved, and not one of other origin."""
    return bool(saved_adapters(folder)) or saved_members(folder) > 0


def saved_members(folder: Path) -> int:
    """Return of how many members a saved reward model has the statistics; 0: it is none of ours."""
    config = folder / "config.json"
    stored = json.loads(config.read_text(encoding="utf-8")).get(_MEAN) if config.is_file() else 0.0
    return 0 if stored is None else len(stored) if isinstance(stored, list) else 1


def pad_right(ids: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids (B, L) with the padding behind, and the lengths (B,)."""
    lengths_B = torch.tensor([len(row) for row in ids], device=device)
    padded_BL = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
    return padded_BL.to(device), lengths_B


def _with_scalar_head(policy: PreTrainedModel, heads: int) -> PreTrainedModel:
    """Put the trunk of a policy, itself and not a copy, under heads that hold no values yet."""
    policy.config.num_labels = heads
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
