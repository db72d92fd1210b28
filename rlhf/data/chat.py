"""Messages to token ids and back: the one place, so that training, sampling, scoring and serving agree.

A sequence is always `encode_prompt(...) + encode_response(...)`. The two are encoded apart, so the prompt's
ids are a prefix of the sequence's by construction, and a message's text can never become a special token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from schemas.errors import ModelNotUsable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Private-use characters: they stand for a special token's text in a message while the template is rendered.
_OPEN, _CLOSE = "\ue000", "\ue001"


def encode_prompt(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Render the conversation with the chat template, up to where the assistant starts to speak."""
    markers = sorted(
        (token.content for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True
    )
    markers += [_OPEN, _CLOSE]
    masked = [{**message, "content": _mask(message["content"], markers)} for message in messages]
    text = tokenizer.apply_chat_template(masked, add_generation_prompt=True, tokenize=False)
    if not isinstance(text, str):
        raise ModelNotUsable(
            f"The chat template gave a {type(text).__name__}; wanted text. Check the chat template."
        )
    ids: list[int] = []
    for number, part in enumerate(text.replace(_OPEN, _CLOSE).split(_CLOSE)):
        # Odd parts are the masked markers: plain text, spelt out in ordinary tokens.
        ids += _plain(tokenizer, markers[int(part)]) if number % 2 else _parsed(tokenizer, part)
    return ids


def encode_response(tokenizer: PreTrainedTokenizerFast, text: str, *, finished: bool = True) -> list[int]:
    """Return the response's ids, ended by EOS exactly once; a response that was cut off gets none."""
    ids = _plain(tokenizer, text)
    return [*ids, _eos(tokenizer)] if finished else ids


def decode_response(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """Return the text of a response, without special tokens."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if not isinstance(text, str):
        raise TypeError(f"the tokenizer decoded one response to {type(text).__name__}")
    return text


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Return every id that ends a response: the tokenizer's EOS and those of the generation config."""
    config = model.generation_config
    declared = config.eos_token_id if config is not None else None
    extra = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    return frozenset([_eos(tokenizer), *extra])


def _mask(content: str, markers: Sequence[str]) -> str:
    """Replace each marker's text by its number between two private-use characters (longest marker first)."""
    pattern = "|".join(map(re.escape, markers))
    return re.sub(pattern, lambda found: f"{_OPEN}{markers.index(found[0])}{_CLOSE}", content)


def _parsed(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False))


def _plain(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def _eos(tokenizer: PreTrainedTokenizerFast) -> int:
    if not isinstance(tokenizer.eos_token_id, int):
        raise ModelNotUsable(
            "The tokenizer has no EOS token; responses could never end. Choose another base model."
        )
    return tokenizer.eos_token_id
