"""A policy under evaluation: loaded once, it answers prompts and says how likely given responses are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlhf.data.chat import decode_response, encode_prompt, stop_ids
from rlhf.evaluation.over_optimisation import best_of_n_kl
from rlhf.models.best_of_n import Chooser, saved
from rlhf.models.loading import load_policy
from rlhf.models.precision import Precision, autocast
from rlhf.models.sampling import Completion, response_logprobs, sample
from schemas.config import EvaluateConfig
from schemas.errors import ModelNotUsable

Prompt = Sequence[Mapping[str, str]]


class Subject:
    """A policy with its tokenizer, and how it is sampled from."""

    def __init__(self, folder: Path, config: EvaluateConfig, precision: Precision) -> None:
        """Load a policy, or one that chooses the best of its responses by a reward model (see `rlhf.models.best_of_n`)."""
        chooses = saved(folder)
        self.model, self.tokenizer = load_policy(
            chooses.policy if chooses else folder, device=precision.device
        )
        self.config = config
        self.precision = precision
        self.pad_id = int(self.tokenizer.pad_token_id)
        self.chooser: Chooser | None = None
        if chooses:
            self.chooser = chooses.load(self.model, self.tokenizer, device=precision.device)

    @property
    def room(self) -> int:
        """Tokens that a prompt may have, so that a response still fits."""
        return self.positions - self.config.max_new_tokens

    @property
    def positions(self) -> int:
        """Longest sequence of the model, in tokens."""
        return int(getattr(self.model.config, "max_position_embeddings", None) or 1 << 30)

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Return the token ids of each prompt."""
        return [encode_prompt(self.tokenizer, messages) for messages in prompts]

    def answer(
        self, prompts: Sequence[Prompt], prompt_ids: Sequence[list[int]], *, seed: int
    ) -> list[Completion]:
        """Return one response per prompt: sampled, or the best of n that were."""
        if self.chooser is not None:
            groups = self.chooser.draw(
                prompts,
                prompt_ids,
                max_new_tokens=self.config.max_new_tokens,
                temperature=self.config.temperature,
                batch_size=self.config.batch_size,
                precision=self.precision,
                generator=torch.Generator().manual_seed(seed),
            )
            return [group.completions[group.best] for group in groups]
        with torch.no_grad(), autocast(self.precision):
            return sample(
                self.model,
                prompt_ids,
                max_new_tokens=self.config.max_new_tokens,
                temperature=self.config.temperature,
                stop=stop_ids(self.model, self.tokenizer),
                pad_id=self.pad_id,
                batch_size=self.config.batch_size,
                generator=torch.Generator().manual_seed(seed),
            )

    def text(self, completion: Completion) -> str:
        """Return a response as text."""
        return decode_response(self.tokenizer, completion.ids)

    def token_logprobs(
        self,
        prompt_ids: Sequence[Sequence[int]],
        response_ids: Sequence[Sequence[int]],
        *,
        temperature: float = 1.0,
    ) -> list[Tensor]:
        """Return the log-probabilities (T of its own,) of each response's tokens, in nats."""
        with torch.no_grad(), autocast(self.precision):
            return response_logprobs(
                self.model,
                prompt_ids,
                response_ids,
                temperature=temperature,
                pad_id=self.pad_id,
                batch_size=self.config.batch_size,
            )

    def logprobs(
        self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]]
    ) -> list[float]:
        """Return the log-probability of each response, in nats, summed over its tokens."""
        return [float(tokens_T.sum()) for tokens_T in self.token_logprobs(prompt_ids, response_ids)]

    @property
    def choice_kl(self) -> float:
        """KL that the choice among n responses adds to that of the weights: log n - (n - 1) / n nats per response.

        What best-of-n is likely to say has no formula; its true KL does not exceed this one (Beirami et al. 2024).
        """
        return best_of_n_kl(self.chooser.n) if self.chooser else 0.0

    def require_same_tokens(self, other: "Subject") -> None:
        """Refuse to compare two policies token by token whose ids mean different things."""
        if self.tokenizer.get_vocab() != other.tokenizer.get_vocab():
            raise ModelNotUsable(
                f"The policies have different vocabularies ({len(self.tokenizer)} and {len(other.tokenizer)} tokens), "
                "so neither KL nor perplexity can be compared; wanted two policies that share a tokenizer."
            )
