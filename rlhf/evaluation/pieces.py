"""Which words of a response the policy has moved away from the reference: its KL, token by token."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from rlhf.data.chat import decode_response

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_LONGEST = 4
"""Bytes of a character, and so tokens of one, at most."""


def pieces(
    tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], kls: Sequence[float]
) -> tuple[list[str], list[float]]:
    """Return the texts of a response's tokens and the k1 estimate of each (nats).

    Tokens that share a character become one piece with the sum of their estimates; so does, with an empty text, the stop
    id. The texts joined are the response, the estimates added up its KL.
    """
    texts: list[str] = []
    sums: list[float] = []
    before: list[int] = []
    waiting: list[int] = []
    total = 0.0
    for place, (token, kl) in enumerate(zip(ids, kls, strict=True), start=1):
        waiting.append(token)
        total += kl
        # Some tokenizers drop the space of a first token, so each is decoded behind the one before it.
        text = decode_response(tokenizer, before + waiting).removeprefix(decode_response(tokenizer, before))
        if text.endswith(_BROKEN) and len(waiting) < _LONGEST and place < len(ids):
            continue
        texts.append(text)
        sums.append(total)
        before, waiting, total = waiting, [], 0.0
    return texts, sums
