"""This project's policy, reference and critic, as the online aligners have them."""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import peft
import torch
from pydantic import ValidationError
from torch import Tensor

from rlhf.algorithms.logprobs import token_logprobs
from rlhf.conformance.backend import (
    Backend,
    Lora,
    Messages,
    Models,
    NotOffered,
    Prompt,
    Refused,
    Sampled,
    Start,
)
from rlhf.conformance.backends import ours_training
from rlhf.models.batches import collate, response_logits
from rlhf.models.loading import load_policy, merge, save_model
from rlhf.models.precision import Precision
from rlhf.models.sampling import Completion
from rlhf.training.actors import Actors, load_actors
from rlhf.training.experience import describe, learn_from
from rlhf.training.rollout import collect, micro_batch
from schemas.config import LoraConfig


class OurPolicy(Backend):
    """What PPO, RLOO and GRPO sample, score and read."""

    def judged(
        self, trainer: str, models: Models, prompt: Prompt, response: list[int]
    ) -> tuple[list[int], list[int]]:
        """Put the response into the sampler's place and listen to the reward model."""
        if isinstance(prompt, str):
            raise NotOffered
        with _actors(trainer, models, Start(folder=models.policy)) as actors:
            drawn = Completion(
                ids=response, logprobs=[-1.0] * len(response), finished=response[-1] in actors.stop
            )
            sampler: Any = lambda _, prompts, **__: [drawn] * len(prompts)  # noqa: E731
            actors = dataclasses.replace(actors, sampler=sampler)
            read: list[list[int]] = []
            score = actors.reward_model.member_scores

            def listen(ids: Sequence[list[int]], **options: int) -> Tensor:
                read.extend(ids)
                return score(ids, **options)

            actors.reward_model.member_scores = listen  # type: ignore[method-assign, assignment]
            config = ours_training.online_config(trainer, 2, max_new_tokens=len(response))
            rollout, plan = collect(actors, [prompt] * 2, config, precision=FP32, seed=0, iteration=0)
            batch = micro_batch(rollout.prompts, rollout.responses, plan[0][0][0], actors)
            return read[0], batch.responses_BT[0][batch.mask_BT[0]].tolist()

    @torch.no_grad()
    def logprobs(
        self,
        trainer: str,
        start: Start,
        prompts: Sequence[list[int]],
        responses: Sequence[list[int]],
        *,
        of: Literal["policy", "reference"] = "policy",
        temperature: float = 1.0,
        move: float = 0.0,
        passes: int = 1,
    ) -> list[list[Tensor]]:
        """Lay out and score as the update does."""
        found = []
        with _actors(trainer, None, start) as actors:
            _move(actors, move)
            batch = collate(prompts, responses, pad_id=actors.pad_id, device=CPU)
            for _ in range(passes):
                if of == "policy":
                    logits_RV, _values = actors.logits_and_values(batch)
                else:
                    with actors.reference() as reference:
                        logits_RV = response_logits(reference, batch)
                logprobs_BT = batch.spread(
                    token_logprobs(logits_RV, batch.tokens, temperature=temperature, pad_id=actors.pad_id)
                )
                found.append([row[: len(ids)] for row, ids in zip(logprobs_BT, responses, strict=True)])
        return found

    def sample(
        self,
        trainer: str,
        models: Models,
        start: Start,
        prompts: Sequence[Messages],
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        move: float = 0.0,
    ) -> Sampled:
        """Collect a rollout, and describe it as an iteration does."""
        config = ours_training.online_config(
            trainer, len(prompts), max_new_tokens=max_new_tokens, temperature=temperature
        )
        with _actors(trainer, models, start) as actors:
            _move(actors, move)
            rollout, _ = collect(actors, prompts, config, precision=FP32, seed=0, iteration=0)
        told = describe(learn_from(rollout, config, kl_coef=0.1))
        return Sampled(
            prompts=rollout.prompts,
            responses=rollout.responses,
            old_logprobs=(rollout.old_logprobs_BT * rollout.mask_BT).sum(1).tolist(),
            kl=told["kl"] / told["response_length"],
        )

    def first_values(
        self, trainer: str, models: Models, prompts: Sequence[Messages]
    ) -> tuple[Tensor, list[list[int]]]:
        """Collect a rollout: it has the values of its states."""
        if trainer != "ppo":
            raise NotOffered("it has no critic")
        config = ours_training.online_config(trainer, len(prompts))
        with _actors(trainer, models, Start(folder=models.policy)) as actors:
            rollout, _ = collect(actors, prompts, config, precision=FP32, seed=0, iteration=0)
        states = [
            prompt + response[:t]
            for prompt, response in zip(rollout.prompts, rollout.responses, strict=True)
            for t in range(len(response))
        ]
        return rollout.values_BT[rollout.mask_BT], states


CPU = torch.device("cpu")


FP32 = Precision(threads=1, dtype="fp32")


def lora_config(lora: Lora | None) -> LoraConfig | None:
    """Make a recipe's section of it, whose schema refuses what would falsify the reference."""
    if lora is None:
        return None
    try:
        return LoraConfig.model_validate(
            {"rank": lora.rank, "alpha": 4.0, "dropout": lora.dropout, "bias": lora.bias}
        )
    except ValidationError as error:
        raise Refused(str(error)) from error


@contextmanager
def folder_of(start: Start) -> Iterator[Path]:
    """Yield where the policy is; one with an adapter is merged and saved, as the SFT stage does."""
    if start.model is not None:
        raise NotOffered("stages take folders, never a model in memory")
    if start.adapter is None:
        yield start.folder
        return
    model, tokenizer = load_policy(start.folder)
    adapted = peft.PeftModel.from_pretrained(model, str(start.adapter))
    with tempfile.TemporaryDirectory() as folder:
        save_model(merge(adapted), tokenizer, Path(folder))
        yield Path(folder)


@contextmanager
def _actors(trainer: str, models: Models | None, start: Start) -> Iterator[Actors]:
    with folder_of(start) as folder, tempfile.TemporaryDirectory() as reward:
        ours_training.save_reward(models.reward if models else start.folder.parent / "reward", Path(reward))
        yield load_actors(
            folder,
            Path(reward),
            lora=lora_config(start.lora),
            seed=0,
            device="cpu",
            with_critic=trainer == "ppo",
        )


@torch.no_grad()
def _move(actors: Actors, move: float) -> None:
    for parameter in actors.policy.parameters():
        if parameter.requires_grad and move:
            parameter.add_(move)
