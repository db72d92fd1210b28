"""Sample the responses that raters rank."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from schemas.config import SampleConfig

if TYPE_CHECKING:
    from rlhf.models.precision import Precision
    from rlhf.training.step import OnStep


def sample(
    policy: Path,
    prompts: pl.DataFrame,
    config: SampleConfig,
    *,
    seed: int,
    precision: "Precision",
    on_step: "OnStep",
) -> pl.DataFrame:
    """Return `config.num_responses` responses per prompt, in the layout of the table `candidates`."""
    import torch

    from rlhf.data.chat import decode_response, encode_prompt, stop_ids
    from rlhf.models.loading import load_policy
    from rlhf.models.precision import autocast
    from rlhf.models.sampling import sample as sample_responses
    from rlhf.training.step import StepMetrics

    model, tokenizer = load_policy(policy, device=precision.device)
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, list[object]] = {"responses": [], "tokens": [], "finished": []}
    chunk = max(1, config.batch_size // config.num_responses)
    for start in range(0, prompts.height, chunk):
        began = time.monotonic()
        part = prompts.slice(start, chunk)["prompt"].to_list()
        encoded = [
            ids for prompt in part for ids in [encode_prompt(tokenizer, prompt)] * config.num_responses
        ]
        with autocast(precision):
            completions = sample_responses(
                model,
                encoded,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                stop=stop_ids(model, tokenizer),
                pad_id=tokenizer.pad_token_id,
                batch_size=config.batch_size,
                generator=generator,
            )
        for first in range(0, len(completions), config.num_responses):
            group = completions[first : first + config.num_responses]
            rows["responses"].append([decode_response(tokenizer, completion.ids) for completion in group])
            rows["tokens"].append([len(completion.ids) for completion in group])
            rows["finished"].append([completion.finished for completion in group])
        tokens = sum(len(completion.ids) for completion in completions)
        on_step(
            StepMetrics(
                step=min(start + chunk, prompts.height),
                total=prompts.height,
                metrics={"tokens_per_second": tokens / (time.monotonic() - began)},
                tokens=tokens,
                sampled_tokens=tokens,
            )
        )
    return prompts.select("prompt_id", "prompt").with_columns(
        pl.Series("responses", rows["responses"], pl.List(pl.String)),
        pl.Series("tokens", rows["tokens"], pl.List(pl.Int64)),
        pl.Series("finished", rows["finished"], pl.List(pl.Boolean)),
    )


def sample_in_turn(
    policies: Sequence[Path],
    prompts: pl.DataFrame,
    config: SampleConfig,
    *,
    seed: int,
    precision: "Precision",
    on_step: "OnStep",
) -> pl.DataFrame:
    """Return the same table with responses of several policies: prompt i has its j-th from policy (i + j) mod their number.

    Comparisons between policies tell them apart (Touvron et al. 2023, section 3.2.1, pair two variants), and every
    policy is seen on every prompt as often as the number of responses allows.
    """

    def told(place: int) -> "OnStep":
        done, total = place * prompts.height, number * prompts.height
        return lambda step: on_step(replace(step, step=done + step.step, total=total))

    number = len(policies)
    each = config.model_copy(update={"num_responses": -(-config.num_responses // number)})
    sampled = [
        sample(
            policy,
            prompts,
            each,
            seed=seed,
            precision=precision,
            on_step=told(place),
        )
        for place, policy in enumerate(policies)
    ]
    columns: dict[str, list[list[object]]] = {"responses": [], "tokens": [], "finished": []}
    for row in range(prompts.height):
        for name, values in columns.items():
            mine = [frame[name][row].to_list() for frame in sampled]
            values.append(
                [mine[(row + turn) % number][turn // number] for turn in range(config.num_responses)]
            )
    return sampled[0].with_columns(
        pl.Series(name, values, sampled[0].schema[name]) for name, values in columns.items()
    )


def describe(candidates: pl.DataFrame) -> dict[str, float]:
    """Return counts, mean length in tokens, and the share of responses that ended by themselves."""
    flat = candidates.select("tokens", "finished").explode("tokens", "finished")
    return {
        "responses": float(flat.height),
        "mean_tokens": float(flat["tokens"].mean() or 0.0),  # type: ignore[arg-type]
        "eos_rate": float(flat["finished"].mean() or 0.0),  # type: ignore[arg-type]
    }
