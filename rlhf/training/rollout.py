"""Sample responses and score them: everything that the update needs, computed before it.

Shapes: B responses, T response tokens.
"""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlhf.algorithms.logprobs import entropy, token_logprobs
from rlhf.algorithms.masks import length_mask
from rlhf.algorithms.rollouts import Rollout
from rlhf.data.chat import encode_prompt
from rlhf.models.batches import ResponseBatch, collate, score_tokens
from rlhf.models.precision import Precision, autocast
from rlhf.training import processes
from rlhf.training.actors import Actors
from schemas.config import OnlineSection

Messages = Sequence[Mapping[str, str]]
MicroBatch = list[int]
"""Rows of the rollout that share a forward pass, sorted by length."""
Minibatch = list[MicroBatch]
"""Rows that share an optimizer step."""


def generator_for(seed: int, purpose: str, number: int) -> torch.Generator:
    """Return a generator that depends on its arguments only, so that a resumed run needs no random state."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def prompt_rows(num_prompts: int, *, iteration: int, batch_size: int, seed: int) -> list[int]:
    """Return the prompts of an iteration: pass after pass over all, each in an order of its own."""
    first, last = iteration * batch_size, (iteration + 1) * batch_size
    passes = range(first // num_prompts, (last - 1) // num_prompts + 1)
    rows = [
        row
        for number in passes
        for row in torch.randperm(num_prompts, generator=generator_for(seed, "prompts", number)).tolist()
    ]
    offset = passes.start * num_prompts
    return rows[first - offset : last - offset]


def minibatches(
    lengths: Sequence[int],
    *,
    minibatch_size: int,
    micro_batch_size: int | None,
    micro_batch_tokens: int | None = None,
    at_least: int = 1,
    generator: torch.Generator,
) -> list[Minibatch]:
    """Return a random partition into minibatches, each cut into micro-batches of similar length.

    `lengths` are those of prompt and response; `micro_batch_tokens` bounds rows times the longest of them. Where the
    minibatch has the rows for it, there are `at_least` so many micro-batches.
    """
    most = -(-minibatch_size // at_least)
    micro_batch_size = most if micro_batch_size is None else min(micro_batch_size, most)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    plan: list[Minibatch] = []
    for start in range(0, len(order), minibatch_size):
        rows = sorted(order[start : start + minibatch_size], key=lambda row: lengths[row])
        micro_batches: Minibatch = [[]]
        for row in rows:
            size = len(micro_batches[-1])
            too_many = size == micro_batch_size
            too_much = micro_batch_tokens is not None and (size + 1) * lengths[row] > micro_batch_tokens
            if size and (too_many or too_much):
                micro_batches.append([])
            micro_batches[-1].append(row)
        plan.append(micro_batches)
    return plan


def tokens_of(rollout: Rollout, plan: Sequence[Sequence[Minibatch]], steps: int) -> int:
    """Return the tokens, prompts included, of the minibatches that the first so many optimizer steps were taken on."""
    taken = [minibatch for epoch in plan for minibatch in epoch][:steps]
    learnt = [row for minibatch in taken for rows in minibatch for row in rows]
    return sum(len(rollout.prompts[row]) + len(rollout.responses[row]) for row in learnt)


def micro_batch(
    rollout_prompts: Sequence[list[int]], responses: Sequence[list[int]], rows: MicroBatch, actors: Actors
) -> ResponseBatch:
    """Lay out some rows, padded no further than the longest of them."""
    return collate(
        [rollout_prompts[row] for row in rows],
        [responses[row] for row in rows],
        pad_id=actors.pad_id,
        device=actors.device,
    )


@torch.no_grad()
def collect(
    actors: Actors,
    prompts: Sequence[Messages],
    config: OnlineSection,
    *,
    precision: Precision,
    seed: int,
    iteration: int,
) -> tuple[Rollout, list[list[Minibatch]]]:
    """Sample one response per prompt and score it; also return each epoch's minibatches.

    Old log-probabilities are computed over the first epoch's own micro-batches, not taken from the sampler:
    the same arithmetic on the same shapes makes the first ratio exactly 1, in bf16 too.
    """
    ids = [encode_prompt(actors.tokenizer, messages) for messages in prompts]
    mine = processes.share(len(ids))
    generator = generator_for(seed, "sample", iteration)
    # What the processes before this one draw from: n processes then sample what one would.
    torch.rand(mine.start, config.max_new_tokens, generator=generator)
    with autocast(precision):
        own = actors.sampler(
            actors.policy,
            ids[mine],
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            stop=actors.stop,
            pad_id=actors.pad_id,
            batch_size=config.batch_size,
            generator=generator,
        )
    drawn = processes.together(own)
    responses = [completion.ids for completion in drawn]
    lengths_B = torch.tensor([len(response) for response in responses])
    mask_BT = length_mask(lengths_B, int(lengths_B.max())).to(actors.device)
    lengths = [len(prompt) + len(response) for prompt, response in zip(ids, responses, strict=True)]
    plan = _plan(lengths, config, generator_for(seed, "minibatches", iteration))
    old_BT, ref_BT, values_BT, entropy_BT = _score_planned(
        actors, ids, responses, mask_BT, plan[0], config, precision
    )
    with autocast(precision):
        scores = actors.reward_model.normalised_scores(
            actors.renderer.sequences(
                prompts[mine], ids[mine], responses[mine], [completion.finished for completion in own]
            )
        )
    scores_B = torch.tensor(processes.together(scores.tolist()))
    sampler_BT = torch.zeros_like(old_BT)
    sampler_BT[mask_BT] = old_BT.new_tensor([value for completion in drawn for value in completion.logprobs])
    rollout = Rollout(
        prompts=ids,
        responses=responses,
        mask_BT=mask_BT,
        finished_B=torch.tensor([completion.finished for completion in drawn], device=actors.device),
        scores_B=scores_B.to(actors.device),
        old_logprobs_BT=old_BT,
        sampler_logprobs_BT=sampler_BT,
        ref_logprobs_BT=ref_BT,
        values_BT=values_BT,
        entropy_BT=entropy_BT,
    )
    return rollout, plan


def _plan(lengths: Sequence[int], config: OnlineSection, generator: torch.Generator) -> list[list[Minibatch]]:
    """Return the minibatches of each epoch."""
    return [
        minibatches(
            lengths,
            minibatch_size=config.minibatch_size,
            micro_batch_size=config.micro_batch_size,
            micro_batch_tokens=config.micro_batch_tokens,
            at_least=processes.number(),
            generator=generator,
        )
        for _ in range(config.epochs)
    ]


def _score_planned(
    actors: Actors,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    mask_BT: Tensor,
    epoch: Sequence[Minibatch],
    config: OnlineSection,
    precision: Precision,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Score an epoch's micro-batches one by one; return what `_score` does, each (B, T), 0 in the padding."""
    scored = tuple(torch.zeros(mask_BT.shape, device=mask_BT.device) for _ in range(4))
    for rows in processes.dealt([rows for minibatch in epoch for rows in minibatch]):
        batch = micro_batch(prompts, responses, rows, actors)
        width = batch.mask_BT.shape[1]
        for target_BT, part_BT in zip(scored, _score(actors, batch, config, precision), strict=True):
            target_BT[rows, :width] = part_BT
    old_BT, ref_BT, values_BT, entropy_BT = (processes.total(part_BT) for part_BT in scored)
    return old_BT, ref_BT, values_BT, entropy_BT


def _score(
    actors: Actors, batch: ResponseBatch, config: OnlineSection, precision: Precision
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return log-probabilities of policy and reference, values and entropy, each (B, T)."""
    with autocast(precision):
        logits_RV, values_BT = actors.logits_and_values(batch)
        with actors.reference() as reference:
            ref_BT = score_tokens(reference, batch, temperature=config.temperature, pad_id=actors.pad_id)
    logprobs_R = token_logprobs(logits_RV, batch.tokens, temperature=config.temperature, pad_id=actors.pad_id)
    entropy_R = entropy(logits_RV, temperature=config.temperature, pad_id=actors.pad_id)
    return batch.spread(logprobs_R), ref_BT, values_BT, batch.spread(entropy_R)
