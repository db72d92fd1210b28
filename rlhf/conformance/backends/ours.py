"""This project: the stages' own functions, called as the stages call them."""

import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from rlhf.algorithms import advantages, losses, masks
from rlhf.algorithms.rollouts import Rollout
from rlhf.conformance.backend import (
    Lora,
    Messages,
    Models,
    NotOffered,
    Prompt,
    Start,
)
from rlhf.conformance.backends import ours_training
from rlhf.conformance.backends.ours_policy import CPU, FP32, OurPolicy, folder_of, lora_config
from rlhf.conformance.models import ANSWERS, QUESTIONS
from rlhf.data.chat import encode_prompt, encode_response
from rlhf.data.pairs import Pair, encode_pairs
from rlhf.models.loading import load_weights
from rlhf.models.reward import RewardModel
from rlhf.training import dpo
from rlhf.training.comparisons import collate as collate_comparisons
from rlhf.training.comparisons import from_pairs
from rlhf.training.experience import learn_from
from rlhf.training.objective import token_weights
from rlhf.training.reward_steps import cost
from rlhf.training.sft import encode_examples
from schemas.config import GRPOConfig, PPOConfig
from schemas.config.aligners import DPOConfig
from schemas.config.reward import RewardConfig
from schemas.errors import DataRejected


class Ours(OurPolicy):
    """SFT, reward model, DPO, PPO, RLOO and GRPO of `rlhf`."""

    name = "rlhf"
    online = ("ppo", "rloo", "grpo")
    trainers = ("sft", "reward", "dpo", "ppo", "rloo", "grpo")
    draws_pad = False

    def versions(self) -> Mapping[str, str]:
        """Return the version of the package and of what computes."""
        return {name: version(name) for name in ("rlhf", "torch", "transformers", "peft")}

    def demonstration(self, models: Models, prompt: Messages, response: str) -> tuple[list[int], list[int]]:
        """As `sft.fit` encodes them."""
        row = {"prompt": prompt, "response": response}
        return encode_examples(models.tokenizer, [row], max_length=10_000)[0]

    def comparison(
        self,
        models: Models,
        prompt: Prompt,
        chosen: str,
        rejected: str,
        max_length: int | None = None,
    ) -> tuple[list[int], list[int]] | None:
        """As `reward.fit` encodes them; a prompt is always a conversation."""
        if isinstance(prompt, str):
            raise NotOffered
        pair = _pair(models.tokenizer, prompt, chosen, rejected, max_length)
        return None if pair is None else (pair.prompt + pair.chosen, pair.prompt + pair.rejected)

    def preference(
        self,
        models: Models,
        prompt: Messages,
        chosen: str,
        rejected: str,
        max_length: int | None = None,
    ) -> tuple[list[int], list[int], list[int]] | None:
        """As `dpo.fit` encodes them."""
        pair = _pair(models.tokenizer, prompt, chosen, rejected, max_length)
        return None if pair is None else (pair.prompt, pair.chosen, pair.rejected)

    def scores(self, reward: Path, sequences: Sequence[list[int]], *, pad_is_eos: bool = False) -> Tensor:
        """Score by `RewardModel`."""
        model = _reward_model(reward)
        if pad_is_eos:
            model.model.config.pad_token_id = model.model.config.eos_token_id
        return model.raw_scores(sequences, batch_size=len(sequences))

    def token_rewards(
        self, scores_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, *, kl_coef: float, score_clip: float
    ) -> Tensor:
        """Learn from a rollout with these numbers."""
        config = PPOConfig(score_clip=score_clip)
        return learn_from(_rollout(scores_B, kl_BT, mask_BT), config, kl_coef=kl_coef).rewards_BT

    def group_advantages(self, trainer: str, models: Models, rewards_GK: Tensor) -> Tensor:
        """Learn from a rollout with these scores."""
        if trainer == "ppo":
            raise NotOffered("it has a critic in place of groups")
        mask_BT = torch.ones(rewards_GK.numel(), 3, dtype=torch.bool)
        config = ours_training.online_config(
            trainer, len(mask_BT), group_size=rewards_GK.shape[1], score_clip=1e6
        )
        rollout = _rollout(rewards_GK.flatten(), torch.zeros(mask_BT.shape), mask_BT)
        return learn_from(rollout, config, kl_coef=0.0).advantages_BT[:, 0].view_as(rewards_GK)

    def advantages(
        self, rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float
    ) -> tuple[Tensor, Tensor]:
        """By `gae`."""
        return advantages.gae(rewards_BT, values_BT, mask_BT, gamma=gamma, lam=lam)

    def whiten(self, values_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """By `masks.whiten`."""
        return masks.whiten(values_BT, mask_BT)

    def policy_loss(
        self,
        trainer: str,
        models: Models,
        logprobs_BT: Tensor,
        old_logprobs_BT: Tensor,
        ref_logprobs_BT: Tensor,
        advantages_B: Tensor,
        mask_BT: Tensor,
        *,
        kl_coef: float = 0.0,
    ) -> Tensor:
        """As the objective; PPO with the estimator that `kl.place: loss` is documented with, RLOO has its KL in the reward."""
        num_tokens, estimator, weights_BT = int(mask_BT.sum()), "k2", None
        if trainer == "rloo":
            if kl_coef:
                raise NotOffered
            return losses.response_loss(
                logprobs_BT, old_logprobs_BT, advantages_B[:, None], mask_BT,
                clip_range=0.2, num_responses=len(mask_BT),
            ).loss  # fmt: skip
        if trainer == "grpo":
            config = GRPOConfig(batch_size=len(mask_BT), minibatch_size=len(mask_BT), group_size=len(mask_BT))
            estimator = config.kl.estimator
            weights_BT = token_weights(mask_BT, config, num_tokens)
        loss = losses.policy_loss(
            logprobs_BT, old_logprobs_BT, advantages_B[:, None].expand_as(mask_BT), mask_BT,
            clip_range=0.2, num_tokens=num_tokens, weights_BT=weights_BT,
        ).loss  # fmt: skip
        if kl_coef:
            loss = loss + kl_coef * losses.kl_loss(
                logprobs_BT, old_logprobs_BT, ref_logprobs_BT, mask_BT,
                estimator=estimator, num_tokens=num_tokens, weights_BT=weights_BT,
            )  # fmt: skip
        return loss

    def value_loss(
        self,
        values_BT: Tensor,
        old_values_BT: Tensor,
        returns_BT: Tensor,
        mask_BT: Tensor,
        *,
        clip_range: float,
    ) -> Tensor:
        """As PPO's objective."""
        return losses.value_loss(
            values_BT,
            old_values_BT,
            returns_BT,
            mask_BT,
            clip_range=clip_range,
            num_tokens=int(mask_BT.sum()),
        ).loss

    def comparison_loss(self, models: Models, chosen_B: Tensor, rejected_B: Tensor) -> tuple[Tensor, float]:
        """As a step of `reward.fit`, without the term that centres the scores."""
        pairs = [
            Pair(row=row, prompt_id=str(row), prompt=[5], chosen=[6], rejected=[7])
            for row in range(len(chosen_B))
        ]
        batch = collate_comparisons(from_pairs(pairs), CPU)
        scores_GK = torch.stack([chosen_B, rejected_B], dim=1)
        found = cost(scores_GK, batch, RewardConfig(center_coefficient=0.0), torch.ones(len(pairs)))
        return found.loss / found.weight, float(found.right / found.pairs)

    def first_preference_loss(
        self, start: Start, pairs: Sequence[tuple[Messages, str, str]], *, loss: str, beta: float
    ) -> float:
        """Run `dpo.fit` for one step."""
        config = DPOConfig.model_validate(
            {
                "steps": 1,
                "batch_size": len(pairs),
                "loss": loss,
                "beta": beta,
                "lora": lora_config(start.lora),
            }
        )
        with folder_of(start) as folder, tempfile.TemporaryDirectory() as out:
            table = ours_training.preferences(pairs)
            metrics = dpo.fit(
                folder, table, config, seed=0, precision=FP32, on_step=lambda _: None, out=Path(out)
            )
        return metrics["loss"]

    def train(self, trainer: str, models: Models, out: Path, **options: Any) -> None:
        """Run the stage's `fit`."""
        ours_training.train(trainer, models, out, **options)

    def resume(self, trainer: str, models: Models, out: Path, *, steps: int, stop_after: int | None) -> None:
        """Stop an online aligner by an exception after some iterations, and call it again."""
        if trainer not in self.online:
            raise NotOffered
        ours_training.resume(trainer, models, out, steps=steps, stop_after=stop_after)

    def reward_roundtrip(self, models: Models, out: Path, lora: Lora | None) -> tuple[Tensor, Tensor]:
        """Train as `reward.fit` does, save, load."""
        sequences = [
            encode_prompt(models.tokenizer, prompt) + encode_response(models.tokenizer, text)
            for prompt, text in zip(QUESTIONS, ANSWERS, strict=True)
        ]
        return ours_training.reward_roundtrip(models, out, sequences, lora_config(lora))


def _rollout(scores_B: Tensor, kl_BT: Tensor, mask_BT: Tensor) -> Rollout:
    """Return a rollout of finished responses with these scores and this k1 per token."""
    nothing_BT = torch.zeros_like(kl_BT)
    return Rollout(
        prompts=[[5]] * len(mask_BT),
        responses=[[6] * length for length in mask_BT.sum(1).tolist()],
        mask_BT=mask_BT,
        finished_B=torch.ones_like(scores_B, dtype=torch.bool),
        scores_B=scores_B,
        old_logprobs_BT=kl_BT,
        sampler_logprobs_BT=kl_BT,
        ref_logprobs_BT=nothing_BT,
        values_BT=nothing_BT,
        entropy_BT=nothing_BT,
    )


def _pair(
    tokenizer: PreTrainedTokenizerFast, prompt: Messages, chosen: str, rejected: str, max_length: int | None
) -> Pair | None:
    table = ours_training.preferences([(prompt, chosen, rejected)])
    try:
        return encode_pairs(tokenizer, table, max_length=max_length or 10_000)[0]
    except DataRejected:
        return None


def _reward_model(folder: Path) -> RewardModel:
    return RewardModel(load_weights(folder, "cpu", AutoModelForSequenceClassification, num_labels=1))


backend = Ours()
