"""What the suite asks of an implementation. Whatever one does not offer is reported as not offered, never as a pass.

A backend of your own is a Python file that defines `backend`, an object of a subclass; override what you have. Shapes: B responses,
T response tokens, G groups, K responses of a group. A mask is True where a token counts. Everything is computed in fp32 on the CPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

Messages = list[dict[str, str]]
Prompt = Messages | str
"""A conversation, or a text that no template touches, for implementations that know such."""


class NotOffered(Exception):
    """The implementation has nothing of the kind."""


class Refused(Exception):
    """The implementation refuses such a configuration with an error: as good as doing it right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Fresh low-rank adapters."""

    rank: int = 2
    dropout: float = 0.0
    bias: Literal["none", "all"] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a policy reaches a trainer."""

    folder: Path
    """Weights and tokenizer in the Hugging Face layout."""
    model: PreTrainedModel | None = None
    """A model in memory that has learnt since it was loaded from there."""
    adapter: Path | None = None
    """A trained adapter (PEFT's layout) that continues on those weights."""
    lora: Lora | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Tiny models with random weights, made from a configuration."""

    policy: Path
    """A Llama; many ids end its responses, so that they are ragged."""
    learned_positions: Path
    """A GPT-2: unlike rotary positions, its own notice a shift."""
    reward: Path
    """A Llama for sequence classification with one score, of the same tokenizer."""
    tokenizer: PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Responses that an online trainer drew, and what it remembers of them."""

    prompts: list[list[int]]
    """Token ids, without padding."""
    responses: list[list[int]]
    """Token ids as they are trained on, the stop id included, without padding."""
    old_logprobs: list[float] | None = None
    """Sum over each response of the log-probabilities that the ratio is measured from, where they are kept."""
    kl: float | None = None
    """Mean over the response tokens of log policy - log reference (k1), as it is logged."""


class Backend:
    """An implementation; each method is one of its own functions or steps, and nothing that the adapter computes itself."""

    name = "unnamed"
    online: tuple[str, ...] = ()
    """Trainers that learn from rewards of what they sample, such as ppo."""
    trainers: tuple[str, ...] = ()
    """All that can take training steps: of sft, reward, dpo, and the online ones."""
    draws_pad = True
    """False: the pad id is left out of every distribution."""

    def versions(self) -> Mapping[str, str]:
        """Return name and version of each package that the results are about."""
        return {}

    # Tokens: the tokenizer that is meant is always `models.tokenizer`

    def demonstration(self, models: Models, prompt: Messages, response: str) -> tuple[list[int], list[int]]:
        """Return ids and labels of a demonstration as SFT sees it; -100 where the loss does not count."""
        raise NotOffered

    def comparison(
        self,
        models: Models,
        prompt: Prompt,
        chosen: str,
        rejected: str,
        max_length: int | None = None,
    ) -> tuple[list[int], list[int]] | None:
        """Return the whole sequences that the reward model is trained on, cut to the length; None: the pair is left out."""
        raise NotOffered

    def preference(
        self,
        models: Models,
        prompt: Messages,
        chosen: str,
        rejected: str,
        max_length: int | None = None,
    ) -> tuple[list[int], list[int], list[int]] | None:
        """Return prompt, chosen and rejected ids that DPO learns from; None: the pair is left out."""
        raise NotOffered

    def judged(
        self, trainer: str, models: Models, prompt: Prompt, response: list[int]
    ) -> tuple[list[int], list[int]]:
        """Let the trainer's sampler answer with these ids; return what its reward model reads, and what it trains on."""
        raise NotOffered

    # Models

    def scores(self, reward: Path, sequences: Sequence[list[int]], *, pad_is_eos: bool = False) -> Tensor:
        """Return the scores (B,) of sequences in one batch, where the tokenizer has a pad token and where it has none."""
        raise NotOffered

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
        """Return log-probabilities (T of its own,) of each response, pass by pass, as the update computes them in one batch.

        Before that, `move` is added to every weight that is trained.
        """
        raise NotOffered

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
        """Draw as many responses as there are prompts or more, with the policy `move` away from the reference."""
        raise NotOffered

    def first_values(
        self, trainer: str, models: Models, prompts: Sequence[Messages]
    ) -> tuple[Tensor, list[list[int]]]:
        """Return the critic's values (B,) before the first step, of states that it samples, and these states."""
        raise NotOffered

    # Rewards, advantages, losses

    def token_rewards(
        self, scores_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, *, kl_coef: float, score_clip: float
    ) -> Tensor:
        """Return the rewards (B, T) of responses that a stop id ended."""
        raise NotOffered

    def advantages(
        self, rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float
    ) -> tuple[Tensor, Tensor]:
        """Return generalised advantage estimates and returns, each (B, T), before any whitening."""
        raise NotOffered

    def whiten(self, values_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Return the values (B, T) with mean 0 and variance 1."""
        raise NotOffered

    def group_advantages(self, trainer: str, models: Models, rewards_GK: Tensor) -> Tensor:
        """Return the advantages (G, K) of responses with these rewards, without a KL penalty."""
        raise NotOffered

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
        """Return the loss () with every token of a response having its advantage, and the KL term if it is in the loss."""
        raise NotOffered

    def value_loss(
        self,
        values_BT: Tensor,
        old_values_BT: Tensor,
        returns_BT: Tensor,
        mask_BT: Tensor,
        *,
        clip_range: float,
    ) -> Tensor:
        """Return the critic's clipped loss ()."""
        raise NotOffered

    def comparison_loss(self, models: Models, chosen_B: Tensor, rejected_B: Tensor) -> tuple[Tensor, float]:
        """Return the reward model's loss () of these scores, and the accuracy that is logged."""
        raise NotOffered

    def first_preference_loss(
        self, start: Start, pairs: Sequence[tuple[Messages, str, str]], *, loss: str, beta: float
    ) -> float:
        """Return DPO's loss before the first step (`sigmoid` or `ipo`); the reference is the policy as it starts."""
        raise NotOffered

    # Training and saving

    def train(
        self,
        trainer: str,
        models: Models,
        out: Path,
        *,
        steps: int,
        batch_size: int,
        micro_batch_size: int,
        learning_rate: float = 1e-3,
        max_grad_norm: float = 1.0,
        lora: Lora | None = None,
    ) -> None:
        """Train on the suite's data (`models.py`) with dropout off and save to `out`, ready for `from_pretrained`."""
        raise NotOffered

    def resume(self, trainer: str, models: Models, out: Path, *, steps: int, stop_after: int | None) -> None:
        """Train so many steps and save to `out`, in one go, or stopped and taken up again from the checkpoint."""
        raise NotOffered

    def reward_roundtrip(self, models: Models, out: Path, lora: Lora | None) -> tuple[Tensor, Tensor]:
        """Train a reward model for a step on the policy's trunk; return its scores before saving and after loading."""
        raise NotOffered
