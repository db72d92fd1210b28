"""TRL's online trainers, on responses that are given to them or that they draw."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import peft
import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import (
    GRPOConfig,
    GRPOTrainer,
    RLOOConfig,
    RLOOTrainer,
)

from rlhf.conformance.backend import Backend, Messages, Models, NotOffered, Prompt, Sampled, Start
from rlhf.conformance.backends import trl_training
from rlhf.conformance.backends.trl_training import arguments, lora_config, quiet


class OnlineTRL(Backend):
    """What RLOO and GRPO sample, score and read."""

    def judged(
        self, trainer: str, models: Models, prompt: Prompt, response: list[int]
    ) -> tuple[list[int], list[int]]:
        """Give the trainer a reward model, and listen to it."""
        judge = AutoModelForSequenceClassification.from_pretrained(models.reward, dtype=torch.float32)
        read: list[Tensor] = []

        def listen(_: torch.nn.Module, __: tuple[()], inputs: dict[str, Tensor]) -> None:
            read.append(inputs["input_ids"][0][inputs["attention_mask"][0].bool()])

        judge.register_forward_pre_hook(listen, with_kwargs=True)
        with online(trainer, models, Start(folder=models.policy), reward=judge) as built:
            _answer(built, [response] * 2)
            output = built._generate_and_score_completions([{"prompt": prompt}] * 2)
        trained = output["completion_ids"][0][output["completion_mask"][0].bool()].tolist()
        return read[0].tolist(), trained

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
        """Let the sampler answer so, and listen to the log-probabilities that the step computes."""
        with online(trainer, None, start, temperature=temperature, beta=0.05) as built:
            _move(built, move)
            built._tokenize_prompts = lambda _: (list(prompts), None, {})
            _answer(built, responses)
            heard = _listen(built)
            output = built._generate_and_score_completions(
                [{"prompt": [{"role": "user", "content": "?"}]}] * len(prompts)
            )
            if of == "reference":
                found = heard[-1:]
            else:
                heard.clear()
                for _ in range(passes):
                    built._compute_loss(built.model, output)
                found = heard
        return [[row[: len(ids)] for row, ids in zip(part, responses, strict=True)] for part in found]

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
        """Draw a generation batch, and compute its loss once."""
        options: dict[str, Any] = {
            "temperature": temperature,
            "max_completion_length": max_new_tokens,
            "beta": 0.05,
        }
        with online(trainer, models, start, **options) as built:
            _move(built, move)
            output = built._generate_and_score_completions([{"prompt": prompt} for prompt in prompts])
            told = built._metrics["train"].get("kl", [None])[-1]
            heard = _listen(built)
            built._compute_loss(built.model, output)
        mask_BT = output["completion_mask"].bool()
        # Where a trainer keeps none, its ratio is measured from the update's own log-probabilities.
        old_B = output["old_logps"] if "old_logps" in output else (heard[0] * mask_BT).sum(1)
        return Sampled(
            prompts=[
                ids[mask.bool()].tolist()
                for ids, mask in zip(output["prompt_ids"], output["prompt_mask"], strict=True)
            ],
            responses=[
                ids[mask].tolist() for ids, mask in zip(output["completion_ids"], mask_BT, strict=True)
            ],
            old_logprobs=old_B.tolist(),
            kl=told,
        )

    def group_advantages(self, trainer: str, models: Models, rewards_GK: Tensor) -> Tensor:
        """Give the trainer a reward function that returns these."""
        groups, size = rewards_GK.shape
        rewards = rewards_GK.flatten().tolist()
        with online(
            trainer, models, Start(folder=models.policy),
            reward=lambda **_: rewards, beta=0.0, num_generations=size,
        ) as built:  # fmt: skip
            _answer(built, [[9, 10, 11]] * len(rewards))
            rows = [
                {"prompt": [{"role": "user", "content": f"hi {row // size}"}]} for row in range(len(rewards))
            ]
            output = built._generate_and_score_completions(rows)
        advantages_B: Tensor = output["advantages"]
        return advantages_B.view(groups, size)

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
        """Put these log-probabilities in the model's place; RLOO has its KL in the reward."""
        if kl_coef and trainer == "rloo":
            raise NotOffered
        ids_BT = torch.full(mask_BT.shape, 9)
        with online(trainer, models, Start(folder=models.policy), beta=kl_coef) as built:
            built._get_per_token_logps_and_entropies = lambda *_, **__: (
                logprobs_BT, torch.zeros_like(logprobs_BT), None,
            )  # fmt: skip
            loss: Tensor = built._compute_loss(
                built.model,
                {
                    "prompt_ids": ids_BT[:, :1],
                    "prompt_mask": torch.ones(len(ids_BT), 1, dtype=torch.long),
                    "completion_ids": ids_BT,
                    "completion_mask": mask_BT.long(),
                    "advantages": advantages_B,
                    "old_logps": (old_logprobs_BT * mask_BT).sum(1),
                    "old_per_token_logps": old_logprobs_BT,
                    "ref_per_token_logps": ref_logprobs_BT,
                    "num_items_in_batch": mask_BT.sum(),
                },
            )
        return loss


ONLINE = {"rloo": (RLOOTrainer, RLOOConfig), "grpo": (GRPOTrainer, GRPOConfig)}


@contextmanager
def online(
    trainer: str,
    models: Models | None,
    start: Start,
    *,
    reward: Any = None,
    num_generations: int = 2,
    **options: Any,
) -> Iterator[Any]:
    """Build an online trainer on a dataset of prompts, in training mode, as its step finds it."""
    kind, config = ONLINE[trainer]
    prompts = [{"prompt": [{"role": "user", "content": f"hi {row}"}]} for row in range(4)]
    batch = {"per_device_train_batch_size": num_generations * 2, "num_generations": num_generations}
    with arguments(config, **{"max_completion_length": 6} | batch | options) as args:
        built = quiet(kind)(
            model=policy_of(start), reward_funcs=reward or (lambda completions, **_: [float(len(c[0]["content"])) for c in completions]),
            args=args, train_dataset=Dataset.from_list(prompts),
            processing_class=models.tokenizer if models else trl_training.words_of(start.folder),
            peft_config=lora_config(start.lora),
        )  # fmt: skip
        built.model.train()
        built.current_gradient_accumulation_steps = 1
        yield built


def policy_of(start: Start) -> Any:
    """Return what a trainer takes as its `model`."""
    if start.model is not None:
        return start.model
    if start.adapter is not None:
        base = AutoModelForCausalLM.from_pretrained(start.folder, dtype=torch.float32)
        return peft.PeftModel.from_pretrained(base, str(start.adapter), is_trainable=True)
    return str(start.folder)


def _answer(built: Any, responses: Sequence[list[int]]) -> None:
    """Let the sampler draw these responses."""
    drawn = [list(ids) for ids in responses]
    built._generate_single_turn = lambda *_, **__: (drawn, None) if isinstance(built, GRPOTrainer) else drawn


def _listen(built: Any) -> list[Tensor]:
    """Return a list that fills with the log-probabilities (B, T) that the trainer computes."""
    heard: list[Tensor] = []
    compute: Callable[..., Any] = built._get_per_token_logps_and_entropies

    def remember(*args: Any, **options: Any) -> Any:
        found = compute(*args, **options)
        heard.append(found[0].detach())
        return found

    built._get_per_token_logps_and_entropies = remember
    return heard


@torch.no_grad()
def _move(built: Any, move: float) -> None:
    for parameter in built.model.parameters():
        if parameter.requires_grad and move:
            parameter.add_(move)
