"""Reward models from raters who are wrong in a quarter of their comparisons.

    python benchmarks/reward_noise.py weights --homes HOME...    # does the raters' agreement help?
    python benchmarks/reward_noise.py ensembles --homes HOME...  # does an ensemble pick better answers?

HOME is the RLHF_HOME of a finished `rlhf run helpdesk seed=N`, for N = 0, 1, ... in this order; its SFT model
and its candidates are read, and nothing is written there. Five simulated raters see the hidden utility with
errors whose deviations are 1/4, 1/2, 1, 2 and 4 times one number, which is chosen so that a quarter of all
comparisons comes out the wrong way round.

`weights`: three raters rank each prompt; accuracy is over pairs of other prompts, in the true order.
`ensembles`: one rater ranks each prompt; each reward model picks the best of n new answers, and what counts
is the hidden utility of the one that it picks. One JSON line each.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from rlhf.algorithms.ensembles import combine
from rlhf.data.chat import encode_prompt, stop_ids
from rlhf.data.helpdesk.utility import judge
from rlhf.data.helpdesk.world import World
from rlhf.data.splits import split_by_prompt
from rlhf.evaluation.intervals import bootstrap_ratio
from rlhf.evaluation.judged_pairs import judge_pairs, won
from rlhf.feedback.rankings import pairs
from rlhf.models.loading import load_policy
from rlhf.models.precision import choose
from rlhf.models.reward import RewardModel
from rlhf.models.sampling import sample
from rlhf.training import reward
from schemas.config import ComputeConfig, EnsembleConfig, LoraConfig, RewardConfig
from schemas.reports import StageEntry
from schemas.tables import polars_schema

SPREADS = (0.25, 0.5, 1.0, 2.0, 4.0)
WRONG = 0.25
ADAPTERS = EnsembleConfig(kind="adapters", size=4)
MODELS = {
    "single": RewardConfig(),
    "heads": RewardConfig(ensemble=EnsembleConfig(kind="heads", size=4)),
    "adapters": RewardConfig(ensemble=ADAPTERS, lora=LoraConfig(rank=16, alpha=32.0), learning_rate=2e-3),
}
PRECISION = choose(ComputeConfig(threads=1))


def outputs(home: Path, stage: str) -> dict[str, Path]:
    """Return what a stage of a finished run left in its store, by name."""
    for file in sorted(home.glob(f"store/runs/*/{stage}.json")):
        entry = StageEntry.model_validate_json(file.read_text(encoding="utf-8"))
        if entry.record.outputs:
            return {name: Path(ref.uri.removeprefix("file://")) for name, ref in entry.record.outputs.items()}
    raise SystemExit(f"{home} has no finished stage {stage}; run the helpdesk recipe there first")


def with_utilities(candidates: pl.DataFrame, world: World) -> pl.DataFrame:
    """Add the hidden utility of each candidate."""
    return candidates.with_columns(
        utilities=pl.Series(
            [
                [judge(world, prompt[-1]["content"], text).utility for text in responses]
                for prompt, responses in candidates.select("prompt", "responses").iter_rows()
            ]
        )
    )


def wrong_share(utilities: list[list[float]], scale: float) -> float:
    """Return how many comparisons of unequal responses the raters, on average, get wrong."""
    generator = np.random.default_rng(0)
    wrong = total = 0
    for spread in SPREADS:
        for values in utilities:
            seen = np.array(values) + generator.normal(0, scale * spread, len(values))
            for left, right in combinations(range(len(values)), 2):
                if values[left] != values[right]:
                    total += 1
                    wrong += (values[left] > values[right]) != (seen[left] > seen[right])
    return wrong / total


def calibrated(utilities: list[list[float]]) -> float:
    """Return the scale at which a quarter of the comparisons is wrong."""
    low, high = 0.01, 20.0
    for _ in range(20):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if wrong_share(utilities, middle) < WRONG else (low, middle)
    return (low * high) ** 0.5


def rank(frame: pl.DataFrame, scale: float, *, overlap: int, seed: int) -> pl.DataFrame:
    """Return the table `rankings`: `overlap` raters rank each prompt; equal texts share a rank."""
    rows = []
    for number, row in enumerate(frame.iter_rows(named=True)):
        for turn in range(overlap):
            rater = (number + turn) % len(SPREADS)
            errors = {
                text: random.Random(f"{seed} {rater} {number} {text}").gauss(0, scale * SPREADS[rater])
                for text in row["responses"]
            }
            seen = [
                value + errors[text] for value, text in zip(row["utilities"], row["responses"], strict=True)
            ]
            order = sorted(set(seen), reverse=True)
            rows.append(
                (
                    row["prompt_id"], row["prompt"], row["responses"], row["finished"], f"rater-{rater}",
                    [order.index(value) + 1 for value in seen],
                )
            )  # fmt: skip
    return pl.DataFrame(rows, schema=polars_schema("rankings"), orient="row")


def true_pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the table `preferences` in the true order."""
    ranked = frame.select("prompt_id", "prompt", "responses", "finished").with_columns(
        rater=pl.lit("truth"),
        ranks=pl.Series(
            [
                [sorted(set(values), reverse=True).index(v) + 1 for v in values]
                for values in frame["utilities"]
            ],
            dtype=pl.List(pl.Int64),
        ),
    )
    return pairs(ranked)


def trained(
    sft: Path, preferences: pl.DataFrame, candidates: pl.DataFrame, config: RewardConfig, seed: int, out: Path
) -> Path:
    """Train a reward model."""
    reward.fit(
        sft, preferences, None, candidates, config,
        rater_weights={}, seed=seed, precision=PRECISION, on_step=lambda _: None, out=out,
    )  # fmt: skip
    return out


def weights(home: Path, seed: int, folder: Path, *, steps: int) -> Iterator[dict[str, Any]]:
    """Train on votes as they are, on one pair per comparison, and on the same pairs with weights."""
    frame = with_utilities(pl.read_parquet(outputs(home, "sample")["candidates"]), World(seed))
    known, apart = split_by_prompt(frame, 0.1, seed)
    scale = calibrated(known["utilities"].to_list())
    rankings = rank(known, scale, overlap=3, seed=seed)
    by_rater = [pairs(part) for _, part in rankings.group_by("rater", maintain_order=True)]
    together = pairs(rankings)
    arms = {
        "votes": (pl.concat(by_rater), RewardConfig(weighted=False, steps=steps)),
        "unweighted": (together, RewardConfig(weighted=False, steps=steps)),
        "weighted": (together, RewardConfig(steps=steps)),
    }
    truth, sft = true_pairs(apart), outputs(home, "sft")["model"]
    hits = {}
    for name, (preferences, config) in arms.items():
        model = trained(sft, preferences, frame, config, seed, folder / name)
        judged = judge_pairs(model, truth, max_length=192, batch_size=128, precision=PRECISION)
        hits[name] = (
            judged.with_columns(won=won(judged))
            .group_by("prompt_id")
            .agg(pl.sum("won"), pl.len())
            .sort("prompt_id")
        )
        yield {
            "seed": seed,
            "labels": name,
            "pairs": preferences.height,
            "wrong_votes": round(wrong_share(known["utilities"].to_list(), scale), 4),
            **_interval(hits[name]["won"], hits[name]["len"]),
        }
    for name in ("votes", "unweighted"):
        gain = hits["weighted"]["won"] - hits[name]["won"]
        yield {"seed": seed, "gain_over": name, **_interval(gain, hits[name]["len"])}


def _interval(values: pl.Series, sizes: pl.Series) -> dict[str, float]:
    found = bootstrap_ratio(
        values.to_numpy().astype(float),
        sizes.to_numpy().astype(float),
        confidence=0.95,
        samples=2_000,
        seed=0,
    )
    return {name: round(value, 4) for name, value in found.model_dump().items()}


def ensembles(
    home: Path, seed: int, folder: Path, *, prompts: int, most: int, steps: int
) -> Iterator[dict[str, Any]]:
    """Compare what each reward model picks out of n answers, by the hidden utility."""
    world, sft = World(seed), outputs(home, "sft")["model"]
    frame = with_utilities(pl.read_parquet(outputs(home, "sample")["candidates"]), world)
    scale = calibrated(frame["utilities"].to_list())
    preferences = pairs(rank(frame, scale, overlap=1, seed=seed))
    asked = pl.read_parquet(outputs(home, "validate")["held_out"]).head(prompts)["prompt"].to_list()
    ids, gold_PN = _answers(sft, asked, world, most, seed)
    for name, config in MODELS.items():
        model = RewardModel.load(
            trained(sft, preferences, frame, config.model_copy(update={"steps": steps}), seed, folder / name)
        )
        members = model.normalised_members(ids, batch_size=128)
        ways = ("mean", "worst", "uncertainty") if model.members > 1 else ("mean",)
        for how in ways:
            scores_PN = combine(members, how=how, variance_coef=0.5).view(prompts, most)
            for n in (4, 16, most):
                best_P = scores_PN[:, :n].argmax(dim=1)
                gold_P = gold_PN[torch.arange(prompts), best_P]
                found = bootstrap_ratio(
                    gold_P.double().numpy(), np.ones(prompts), confidence=0.95, samples=2_000, seed=0
                )
                yield {
                    "seed": seed,
                    "model": name,
                    "combine": how,
                    "n": n,
                    "score": round(float(scores_PN.gather(1, best_P[:, None]).mean()), 3),
                    "gold": round(found.value, 4),
                    "low": round(found.low, 4),
                    "high": round(found.high, 4),
                    "best_possible": round(float(gold_PN[:, :n].amax(dim=1).mean()), 4),
                }


@torch.no_grad()
def _answers(
    sft: Path, asked: list[list[Mapping[str, str]]], world: World, most: int, seed: int
) -> tuple[list[list[int]], torch.Tensor]:
    """Return the ids of `most` answers to each prompt, in turn, and their hidden utilities (P, N)."""
    model, tokenizer = load_policy(sft)
    prompt_ids = [ids for prompt in asked for ids in [encode_prompt(tokenizer, prompt)] * most]
    drawn = sample(
        model, prompt_ids, max_new_tokens=64, temperature=1.0, stop=stop_ids(model, tokenizer),
        pad_id=int(tokenizer.pad_token_id), batch_size=256,
        generator=torch.Generator().manual_seed(1_000 + seed),
    )  # fmt: skip
    gold = [
        judge(
            world, asked[row // most][-1]["content"], tokenizer.decode(found.ids, skip_special_tokens=True)
        ).utility
        for row, found in enumerate(drawn)
    ]
    sequences = [prompt + found.ids for prompt, found in zip(prompt_ids, drawn, strict=True)]
    return sequences, torch.tensor(gold).view(len(asked), most)


def main() -> None:
    """Study each home and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=["weights", "ensembles"])
    parser.add_argument(
        "--homes", type=Path, nargs="+", required=True, help="of seeds 0, 1, ... in this order"
    )
    parser.add_argument("--steps", type=int, default=400, help="of each reward model")
    parser.add_argument("--prompts", type=int, default=128, help="of `ensembles`")
    parser.add_argument("--most", type=int, default=32, help="answers to a prompt in `ensembles`")
    arguments = parser.parse_args()
    for seed, home in enumerate(arguments.homes):
        with tempfile.TemporaryDirectory() as folder:
            found = (
                weights(home, seed, Path(folder), steps=arguments.steps)
                if arguments.study == "weights"
                else ensembles(
                    home,
                    seed,
                    Path(folder),
                    prompts=arguments.prompts,
                    most=arguments.most,
                    steps=arguments.steps,
                )
            )
            for line in found:
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
