"""A policy that answers conversations, with the scores of the reward model where there is one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rlhf.data.chat import decode_response, encode_prompt, encode_response, stop_ids
from rlhf.models.loading import load_policy, load_tokenizer
from rlhf.models.reward import RewardModel
from rlhf.models.sampling import sample
from schemas.errors import ModelNotUsable

OnText = Callable[[str], None]
"""Called with each new piece of a response; what it raises ends the sampling."""
Messages = Sequence[dict[str, str]]

_GREEDY = 1e-4
"""Temperature 0 means the likeliest token; at this one no other has a chance that matters."""
_UNFINISHED = "\ufffd"
"""What a decoder writes for bytes of a character whose other bytes are still to come."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How responses are drawn."""

    temperature: float = 1.0
    max_new_tokens: int = 64
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One response."""

    text: str
    prompt_tokens: int
    tokens: int
    finished: bool
    """It ended by itself, not at the limit of tokens."""
    score: float | None
    """Normalised score; None without a reward model."""


class Assistant:
    """Loaded once, asked many times; not for several threads at once."""

    def __init__(
        self,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        reward: tuple[RewardModel, PreTrainedTokenizerFast] | None = None,
    ) -> None:
        self._policy = policy
        self._tokenizer = tokenizer
        self._reward = reward
        self._stop = stop_ids(policy, tokenizer)

    @classmethod
    def load(cls, policy: Path, reward: Path | None = None, *, device: str = "cpu") -> Self:
        """Load a policy, and the reward model that is to score what it says."""
        scorer = None if reward is None else (RewardModel.load(reward, device=device), load_tokenizer(reward))
        return cls(*load_policy(policy, device=device), scorer)

    @property
    def scores(self) -> bool:
        """Tell whether answers carry scores."""
        return self._reward is not None

    def answer(
        self, messages: Messages, sampling: Sampling, *, n: int = 1, on_text: OnText | None = None
    ) -> list[Answer]:
        """Draw n responses; the same seed draws the same ones. `on_text` hears the first as it comes.

        Raises ModelNotUsable when the conversation and the response do not fit the model.
        """
        prompt = encode_prompt(self._tokenizer, messages)
        pad_id = self._tokenizer.pad_token_id
        assert isinstance(pad_id, int), "load_policy refuses a tokenizer without a pad token"
        heard = _Heard(self._tokenizer, on_text) if on_text else None
        drawn = sample(
            self._policy,
            [prompt] * n,
            max_new_tokens=sampling.max_new_tokens,
            temperature=max(sampling.temperature, _GREEDY),
            stop=self._stop,
            pad_id=pad_id,
            batch_size=n,
            generator=torch.Generator().manual_seed(sampling.seed),
            on_token=heard,
        )
        texts = [decode_response(self._tokenizer, completion.ids) for completion in drawn]
        if heard:
            heard.rest(texts[0])
        scores = self._score(messages, texts, [completion.finished for completion in drawn])
        return [
            Answer(
                text=text,
                prompt_tokens=len(prompt),
                tokens=len(completion.ids),
                finished=completion.finished,
                score=score,
            )
            for text, completion, score in zip(texts, drawn, scores, strict=True)
        ]

    def _score(
        self, messages: Messages, texts: Sequence[str], finished: Sequence[bool]
    ) -> Sequence[float | None]:
        if self._reward is None:
            return [None] * len(texts)
        model, tokenizer = self._reward
        prompt = encode_prompt(tokenizer, messages)
        ids = [
            prompt + encode_response(tokenizer, text, finished=done)
            for text, done in zip(texts, finished, strict=True)
        ]
        if any(not row for row in ids):
            raise ModelNotUsable("The reward model's template gives no tokens; check its tokenizer.")
        scores: list[float] = model.normalised_scores(ids, batch_size=len(ids)).tolist()
        return scores


class _Heard:
    """Turns the tokens of the first response into pieces of text, whole characters only."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, on_text: OnText) -> None:
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._ids: list[int] = []
        self._said = ""

    def __call__(self, row: int, token: int) -> None:
        """Hear one token."""
        if row == 0:
            self._ids.append(token)
            text = decode_response(self._tokenizer, self._ids)
            if not text.endswith(_UNFINISHED):
                self.rest(text)

    def rest(self, text: str) -> None:
        """Say what of the text has not been said."""
        if len(text) > len(self._said):
            piece, self._said = text[len(self._said) :], text
            self._on_text(piece)
