"""Draw responses from a causal language model, and score given ones, by one and the same distribution.

Shapes: B live responses, T response tokens, L prompt + response tokens. Any transformers causal model does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from rlhf.algorithms.logprobs import inverse_cdf, policy_logits
from rlhf.models.batches import collate, pad_left, positions, score_tokens
from rlhf.models.cache import with_room
from schemas.errors import ModelNotUsable, TrainingDiverged

_ROWS = 8
"""A batch shrinks by so many rows at a time: a product of a new size costs more than the rows that it saves."""

OnToken = Callable[[int, int], None]
"""Called with the prompt's index and the token id, as soon as a token is drawn."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response."""

    ids: list[int]
    """Token ids, the stop id included; never the pad id."""
    logprobs: list[float]
    """Log-probability of each id under the tempered distribution it was drawn from, in nats."""
    finished: bool
    """True if a stop id ended it, False if the token limit did."""


class Sampler(Protocol):
    """Whatever draws one response per prompt, in order, from the model as it is now; `sample` is one.

    It draws from the tempered distribution without the pad id, cut off nowhere else. A stop id ends a response and
    belongs to it. Equal generators give equal responses.
    """

    def __call__(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        stop: frozenset[int],
        pad_id: int,
        batch_size: int,
        generator: torch.Generator,
    ) -> list[Completion]:
        """Return the responses; `batch_size` prompts are worked on at a time."""


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    stop: frozenset[int],
    pad_id: int,
    batch_size: int,
    generator: torch.Generator,
    on_token: OnToken | None = None,
) -> list[Completion]:
    """Return one response per prompt, in order, drawn with the (CPU) generator and nothing else.

    Each prompt has random numbers of its own, so that the batch size does not change what is drawn.
    """
    _check_fits(model, prompts, max_new_tokens=max_new_tokens, stop=stop, pad_id=pad_id)
    uniforms = torch.rand(len(prompts), max_new_tokens, generator=generator)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    completions: dict[int, Completion] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        drawn = _decode(
            model,
            [prompts[row] for row in rows],
            uniforms[rows],
            temperature=temperature,
            stop=stop,
            pad_id=pad_id,
            on_token=_translated(on_token, rows),
        )
        completions.update(zip(rows, drawn, strict=True))
    return [completions[row] for row in range(len(prompts))]


@torch.no_grad()
def response_logprobs(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    temperature: float,
    pad_id: int,
    batch_size: int,
) -> list[Tensor]:
    """Return the log-probabilities (T of its own,) of each response's tokens, in nats, on the CPU."""
    device = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda row: len(responses[row]))
    scored: dict[int, Tensor] = {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = collate(
            [prompts[row] for row in rows], [responses[row] for row in rows], pad_id=pad_id, device=device
        )
        logprobs_BT = score_tokens(model, batch, temperature=temperature, pad_id=pad_id).cpu()
        scored.update({row: logprobs_BT[index, : len(responses[row])] for index, row in enumerate(rows)})
    return [scored[row] for row in range(len(prompts))]


def _decode(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    uniforms_BT: Tensor,
    *,
    temperature: float,
    stop: frozenset[int],
    pad_id: int,
    on_token: OnToken | None,
) -> list[Completion]:
    device = next(model.parameters()).device
    ids_BL, attention_BL = pad_left(prompts, pad_id=pad_id, device=device)
    positions_BL = positions(attention_BL)
    uniforms_BT = uniforms_BT.to(device)
    # Where nothing is padded, no mask has to be made for each token.
    attention = None if bool(attention_BL.all()) else attention_BL
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    live: list[int | None] = list(range(len(prompts)))
    cache = None
    for step in range(uniforms_BT.shape[1]):
        output = model(
            input_ids=ids_BL,
            attention_mask=attention,
            position_ids=positions_BL,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if cache is None:
            cache = output.past_key_values
            with_room(cache)
        logits_BV = policy_logits(output.logits[:, -1], temperature=temperature, pad_id=pad_id)
        _require_numbers(logits_BV)
        drawn_B, logprobs_B = inverse_cdf(logits_BV, uniforms_BT[:, step])
        for row, token, logprob in zip(live, drawn_B.tolist(), logprobs_B.tolist(), strict=True):
            if row is not None:
                tokens[row].append(token)
                logprobs[row].append(logprob)
                if on_token is not None:
                    on_token(row, token)
        live = [row if row is not None and tokens[row][-1] not in stop else None for row in live]
        kept = _kept(live)
        if not kept:
            break
        if len(kept) < len(live):
            live = [live[index] for index in kept]
            kept_B = torch.tensor(kept, device=device)
            cache.batch_select_indices(kept_B)
            uniforms_BT, drawn_B, positions_BL = uniforms_BT[kept_B], drawn_B[kept_B], positions_BL[kept_B]
            attention = None if attention is None else attention[kept_B]
        ids_BL = drawn_B[:, None]
        positions_BL = positions_BL[:, -1:] + 1
        if attention is not None:
            attention = torch.cat([attention, attention.new_ones(len(live), 1)], dim=1)
    return [
        Completion(ids=ids, logprobs=scores, finished=ids[-1] in stop)
        for ids, scores in zip(tokens, logprobs, strict=True)
    ]


def _require_numbers(logits_BV: Tensor) -> None:
    if not bool(logits_BV.amax(dim=1).isfinite().all()):
        raise TrainingDiverged(
            "The policy's logits are no numbers any more, so no token can be drawn; lower its learning rate, or hold it "
            "closer to the reference (kl_coef), and train it again."
        )


def _kept(live: Sequence[int | None]) -> list[int]:
    """Return the places that stay in the batch: all live ones, and finished ones until their number is one of few."""
    going = [place for place, row in enumerate(live) if row is not None]
    ended = [place for place, row in enumerate(live) if row is None]
    return going + ended[: -len(going) % _ROWS]


def _translated(on_token: OnToken | None, rows: Sequence[int]) -> OnToken | None:
    """Let the callback hear prompt indices instead of places in the batch."""
    return None if on_token is None else lambda index, token: on_token(rows[index], token)


def _check_fits(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: frozenset[int],
    pad_id: int,
) -> None:
    if pad_id in stop:
        raise ModelNotUsable(
            f"The pad id {pad_id} is also a stop id, so no response could end. "
            "Name another pad token (base.pad_token in the recipe)."
        )
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    longest = max(map(len, prompts), default=0)
    if limit is not None and longest + max_new_tokens > limit:
        raise ModelNotUsable(
            f"A prompt of {longest} tokens and max_new_tokens={max_new_tokens} exceed the model's {limit} "
            "positions. "
            "Lower max_new_tokens, shorten the prompts or take a model with more positions."
        )
