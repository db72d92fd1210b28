"""What aligning has cost: how likely a policy still finds text and demonstrations that no stage trained on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from rlhf.data.chat import encode_response
from rlhf.evaluation.intervals import bootstrap_ratio
from rlhf.evaluation.subject import Subject
from schemas.config import EvaluateConfig
from schemas.evaluation import Forgetting
from schemas.record import Interval

TEXT_TOKENS, LONGEST = 128, 512
"""Tokens that are read at most of a document, and of a demonstration with its prompt."""

Encoded = tuple[list[list[int]], list[list[int]]]
"""Contexts, and what is predicted after each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """How surprising each document is: its nats under the policy and under the reference, and its tokens."""

    policy: list[float]
    reference: list[float]
    tokens: list[int]


def measure(
    policy: Subject,
    reference: Subject,
    text: pl.DataFrame | None,
    demonstrations: pl.DataFrame | None,
    config: EvaluateConfig,
    *,
    seed: int,
) -> Forgetting | None:
    """Measure perplexities and the alignment tax; None where nothing was held out."""
    known = {
        "text": text is not None
        and _surprise(policy, reference, encode_text(policy, text["text"].to_list())),
        "demonstrations": demonstrations is not None
        and _surprise(policy, reference, encode_demonstrations(policy, demonstrations)),
    }
    found = {name: surprise for name, surprise in known.items() if surprise}
    if not found:
        return None

    def ratio(nats: Sequence[float], tokens: Sequence[int]) -> Interval:
        return bootstrap_ratio(
            nats, tokens, confidence=config.confidence, samples=config.bootstrap_samples, seed=seed
        )

    def perplexity(name: str) -> Interval | None:
        if name not in found:
            return None
        nats = ratio(found[name].policy, found[name].tokens)
        return Interval(value=math.exp(nats.value), low=math.exp(nats.low), high=math.exp(nats.high))

    rises = [
        ours - theirs
        for surprise in found.values()
        for ours, theirs in zip(surprise.policy, surprise.reference, strict=True)
    ]
    return Forgetting(
        perplexity_text=perplexity("text"),
        perplexity_demonstrations=perplexity("demonstrations"),
        alignment_tax=ratio(rises, [count for surprise in found.values() for count in surprise.tokens]),
    )


def encode_text(policy: Subject, texts: Sequence[str]) -> Encoded:
    """Encode documents as pre-training packs them: each follows EOS, and ends with it unless it is cut."""
    eos = policy.tokenizer.eos_token_id
    assert isinstance(eos, int), "load_policy refuses a tokenizer without EOS"
    room = min(TEXT_TOKENS, policy.positions - 1)
    return [[eos] for _ in texts], [encode_response(policy.tokenizer, text)[:room] for text in texts]


def encode_demonstrations(policy: Subject, demonstrations: pl.DataFrame) -> Encoded:
    """Encode prompts and responses as SFT does; what does not fit the model is left out."""
    longest = min(LONGEST, policy.positions)
    pairs = [
        (prompt, response[: longest - len(prompt)])
        for prompt, response in zip(
            policy.encode(demonstrations["prompt"].to_list()),
            (encode_response(policy.tokenizer, text) for text in demonstrations["response"]),
            strict=True,
        )
        if len(prompt) < longest
    ]
    return [prompt for prompt, _ in pairs], [response for _, response in pairs]


def _surprise(policy: Subject, reference: Subject, encoded: Encoded) -> Surprise | None:
    contexts, targets = encoded
    if not targets:
        return None
    ours = [-nats for nats in policy.logprobs(contexts, targets)]
    theirs = ours if policy is reference else [-nats for nats in reference.logprobs(contexts, targets)]
    return Surprise(policy=ours, reference=theirs, tokens=[len(ids) for ids in targets])
