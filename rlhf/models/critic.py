"""The critic foresees the return: a copy of the reward model, or a head on the policy's own trunk.

Shapes: B responses, T response tokens, R response tokens of all responses together, D hidden width.
"""

from pathlib import Path
from typing import Self

from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.models.batches import ResponseBatch
from rlhf.models.loading import attach_lora
from rlhf.models.reward import Fp32Linear, RewardModel
from schemas.config.models import LoraConfig


class Critic(nn.Module):
    """Values of states, in units of the normalised score: at a response's end it starts out as that score."""

    def __init__(self, model: PreTrainedModel, *, mean: float, std: float) -> None:
        super().__init__()
        self.model = model
        self.mean = mean
        self.std = std

    @classmethod
    def from_reward_model(cls, path: Path, *, lora: LoraConfig | None, device: str) -> Self:
        """Start from a saved reward model and its statistics; with LoRA the head is trained in full."""
        return cls._of(RewardModel.load(path, device=device).as_single(), lora)

    @classmethod
    def from_policy(cls, path: Path, *, lora: LoraConfig | None, device: str) -> Self:
        """Start from a policy's trunk, for a reward model that reads other ids; values begin at 0, the mean score."""
        reward = RewardModel.from_policy(path, seed=0, device=device)
        nn.init.zeros_(reward.head.weight)
        return cls._of(reward, lora)

    @classmethod
    def _of(cls, reward: RewardModel, lora: LoraConfig | None) -> Self:
        critic = cls(reward.model, mean=reward.score_mean, std=reward.score_std)
        if lora is not None:
            attach_lora(reward.model, lora, "SEQ_CLS")  # in place: the model's own layers become adapted ones
            critic.eval()
        return critic

    def forward(self, batch: ResponseBatch) -> Tensor:
        """Return the value (B, T) of the state in which each response token was chosen, in fp32; 0 in the padding."""
        hidden_BLD = self.model.base_model(**batch.inputs_of(self.model)).last_hidden_state
        head = self.model.get_submodule("score")
        raw_R = batch.flat(head(hidden_BLD[:, batch.columns_of(self.model)])).squeeze(-1)
        return batch.spread((raw_R.float() - self.mean) / self.std)


class ValueHead(nn.Module):
    """Values read off the policy's own trunk; they begin at 0, the mean of the normalised score."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = Fp32Linear(width, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, hidden_RD: Tensor) -> Tensor:
        """Return the value (R,) of each state, in fp32."""
        values_R: Tensor = self.score(hidden_RD).squeeze(-1)
        return values_R
