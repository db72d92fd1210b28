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
from rlhf.training.reward_steps import cost
from rlhf.training.sft import encode_examples
from schemas.config import PPOConfig
from schemas.config.aligners import DPOConfig
from schemas.config.reward import RewardConfig
from schemas.errors import DataRejected


class Ours(OurPolicy):
    """SFT, reward model, DPO and PPO of `rlhf`."""

    name = "rlhf"
    online = ("ppo",)
    trainers = ("sft", "reward", "dpo", "ppo")
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
        nothing_BT = torch.zeros_like(kl_BT)
        rollout = Rollout(
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
        return learn_from(rollout, PPOConfig(score_clip=score_clip), kl_coef=kl_coef).rewards_BT

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
        """As PPO's objective, with the estimator that the recipe `kl.place=loss` is documented with."""
        num_tokens = int(mask_BT.sum())
        loss = losses.policy_loss(
            logprobs_BT, old_logprobs_BT, advantages_B[:, None].expand_as(mask_BT), mask_BT,
            clip_range=0.2, num_tokens=num_tokens,
        ).loss  # fmt: skip
        if kl_coef:
            loss = loss + kl_coef * losses.kl_loss(
                logprobs_BT, old_logprobs_BT, ref_logprobs_BT, mask_BT, estimator="k2", num_tokens=num_tokens
            )
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
        """Stop PPO by an exception after some iterations, and call it again."""
        if trainer != "ppo":
            raise NotOffered
        ours_training.resume_ppo(models, out, steps=steps, stop_after=stop_after)

    def reward_roundtrip(self, models: Models, out: Path, lora: Lora | None) -> tuple[Tensor, Tensor]:
        """Train as `reward.fit` does, save, load."""
        sequences = [
            encode_prompt(models.tokenizer, prompt) + encode_response(models.tokenizer, text)
            for prompt, text in zip(QUESTIONS, ANSWERS, strict=True)
        ]
        return ours_training.reward_roundtrip(models, out, sequences, lora_config(lora))


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
