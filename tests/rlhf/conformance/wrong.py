"""A backend with planted mistakes: each is one that implementations have made, and each must be found by its check."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from rlhf.conformance.backend import Lora, Messages, Models, Prompt, Sampled, Start
from rlhf.conformance.backends.ours import Ours
from rlhf.conformance.models import EOS


class Wrong(Ours):
    name = "wrong"

    def demonstration(self, models: Models, prompt: Messages, response: str) -> tuple[list[int], list[int]]:
        ids, labels = super().demonstration(models, prompt, response)
        end = models.tokenizer.pad_token_id  # where the two are one, EOS is taken for padding
        return ids, [-100 if token == end else label for token, label in zip(ids, labels, strict=True)]

    def comparison(
        self, models: Models, prompt: Prompt, chosen: str, rejected: str, max_length: int | None = None
    ) -> Any:
        pair = super().comparison(models, prompt, chosen, rejected, max_length)
        return pair and tuple([*ids[:-1], models.tokenizer.eos_token_id] for ids in pair)  # stamped

    def judged(
        self, trainer: str, models: Models, prompt: Prompt, response: list[int]
    ) -> tuple[list[int], list[int]]:
        end = models.tokenizer.convert_tokens_to_ids(EOS)
        ended = response if response[-1] == end else [*response, end]
        read, _ = super().judged(trainer, models, prompt, ended)  # judged as if it were finished
        _, trained = super().judged(trainer, models, prompt, response)
        words = models.tokenizer.decode(trained[:-1])
        return read, [*models.tokenizer.encode(words, add_special_tokens=False), end]  # a second encoding

    @torch.no_grad()
    def scores(self, reward: Path, sequences: Sequence[list[int]], *, pad_is_eos: bool = False) -> Tensor:
        if not pad_is_eos:
            return super().scores(reward, sequences)
        model = AutoModelForSequenceClassification.from_pretrained(reward).eval()
        model.config.pad_token_id = end = model.config.eos_token_id
        width = max(map(len, sequences))
        ids = torch.tensor([[*row, *[end] * (width - len(row))] for row in sequences])
        return model(ids).logits[:, 0]  # transformers looks for the last id that is not the pad's

    def logprobs(
        self, trainer: str, start: Start, prompts: Any, responses: Any, **options: Any
    ) -> list[list[Tensor]]:
        if options.get("of") == "reference" and start.lora:
            options["of"] = "policy"  # adapters stay on
        return super().logprobs(trainer, start, prompts, responses, **options | {"temperature": 1.0})

    def sample(self, trainer: str, models: Models, start: Start, prompts: Any, **options: Any) -> Sampled:
        found = super().sample(trainer, models, start, prompts, **options)
        assert found.kl is not None
        assert found.old_logprobs is not None
        old = [value - 0.01 for value in found.old_logprobs]
        return Sampled(prompts=found.prompts, responses=found.responses, old_logprobs=old, kl=2 * found.kl)

    def first_values(self, trainer: str, models: Models, prompts: Any) -> tuple[Tensor, list[list[int]]]:
        values, states = super().first_values(trainer, models, prompts)
        return values, [*states[1:], states[0]]  # one step late

    def token_rewards(
        self, scores_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, *, kl_coef: float, score_clip: float
    ) -> Tensor:
        rewards_BT = super().token_rewards(scores_B, kl_BT, mask_BT, kl_coef=kl_coef, score_clip=1e9)
        return rewards_BT.clamp(-score_clip, score_clip)  # the KL, too

    def advantages(
        self, rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float
    ) -> tuple[Tensor, Tensor]:
        everything = torch.ones_like(mask_BT)  # bootstraps from the padding
        return super().advantages(rewards_BT, values_BT, everything, gamma=gamma, lam=lam)

    def whiten(self, values_BT: Tensor, mask_BT: Tensor) -> Tensor:
        return super().whiten(values_BT, torch.ones_like(mask_BT))

    def policy_loss(
        self,
        trainer: str,
        models: Models,
        logprobs_BT: Tensor,
        old: Tensor,
        ref: Tensor,
        advantages_B: Tensor,
        mask_BT: Tensor,
        *,
        kl_coef: float = 0.0,
    ) -> Tensor:
        ratio_BT = (logprobs_BT - old).exp()
        log_ratio_BT = ref - logprobs_BT
        k3_BT = log_ratio_BT.exp() - log_ratio_BT - 1
        return (-ratio_BT * advantages_B[:, None] + kl_coef * k3_BT).mean()

    def value_loss(
        self, values_BT: Tensor, old: Tensor, returns_BT: Tensor, mask_BT: Tensor, *, clip_range: float
    ) -> Tensor:
        clipped_BT = old + (values_BT - old).clamp(-clip_range, clip_range)
        return torch.minimum((values_BT - returns_BT) ** 2, (clipped_BT - returns_BT) ** 2).mean()

    def comparison_loss(self, models: Models, chosen_B: Tensor, rejected_B: Tensor) -> tuple[Tensor, float]:
        loss = (1 + (rejected_B - chosen_B).exp()).log().mean()  # overflows
        return loss, float((chosen_B > rejected_B).float().mean())

    def first_preference_loss(self, start: Start, pairs: Any, *, loss: str, beta: float) -> float:
        found = super().first_preference_loss(start, pairs, loss=loss, beta=beta)
        return found / 2 if loss == "ipo" else found

    def train(self, trainer: str, models: Models, out: Path, **options: Any) -> None:
        size = min(options["batch_size"], 6)  # the last micro-batch is lost
        whole = options["micro_batch_size"] == options["batch_size"]
        sizes = {} if whole else {"batch_size": size, "micro_batch_size": size}
        super().train(trainer, models, out, **options | sizes | {"max_grad_norm": 1e9})

    def resume(self, trainer: str, models: Models, out: Path, *, steps: int, stop_after: int | None) -> None:
        super().resume(trainer, models, out, steps=steps - (stop_after or 0), stop_after=None)  # begins anew

    def reward_roundtrip(self, models: Models, out: Path, lora: Lora | None) -> tuple[Tensor, Tensor]:
        before_B, after_B = super().reward_roundtrip(models, out, lora)
        return before_B, after_B + 0.1

    def versions(self) -> Mapping[str, str]:
        return {}


backend = Wrong()
