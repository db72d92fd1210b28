"""Measure over-optimisation of a finished run: its policies while they learnt, and best-of-n from its SFT policy."""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from schemas.config import EnsembleScoring, EvaluateConfig, RunConfig
from schemas.errors import ConfigError, NotFound
from schemas.frontier import FrontierPoint, FrontierReport, MethodFrontier
from schemas.reports import PolicyResult, RewardResult, StageEntry, ValidatedData
from tasks.run import entries, result_of
from tasks.work import artifact_store, connect_tracking

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from rlhf.data.helpdesk.world import World
    from rlhf.evaluation.reward_judge import RewardJudge
    from rlhf.models.precision import Precision

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""n of best-of-n."""


class Gold:
    """What was meant, as far as it can be known: the hidden utility, else the evaluation's reward model."""

    def __init__(self, world: "World | None", judge: "RewardJudge | None") -> None:
        if world is None and judge is None:
            raise ConfigError(
                "Over-optimisation shows against something that was not optimised, and this run has nothing of the "
                "kind; run it with evaluate.judge=evaluation_reward and preferences.judging_fraction=0.5."
            )
        self._world = world
        self._judge = judge

    @property
    def name(self) -> str:
        """Say what stands for gold."""
        return "hidden utility" if self._world else "the evaluation's reward model"

    def values(self, samples: pl.DataFrame) -> list[float]:
        """Return the gold value of each row with prompt, response and finished."""
        from rlhf.evaluation.judges import with_gold

        if self._world is not None:
            return with_gold(samples, self._world)["gold"].to_list()
        assert self._judge is not None, "the constructor refuses to know nothing"
        return self._judge.scores(samples)


def measure_frontier(run_id: str, *, num_prompts: int, num_samples: int, seed: int = 0) -> FrontierReport:
    """Evaluate every iteration of the run's online aligners, and best-of-n, and fit the forms of Gao et al. 2023."""
    from rlhf.data.helpdesk.world import World
    from rlhf.evaluation.over_optimisation import frontier_of_best
    from rlhf.evaluation.reward_judge import RewardJudge
    from rlhf.models.precision import choose

    config, found = _run(run_id)
    precision = choose(config.compute)
    world = World(config.seed) if config.data.source == "helpdesk" else None
    trained = result_of(found, "judge", RewardResult)
    judge = None
    if trained is not None:
        batch_size = config.evaluate.batch_size
        judge = RewardJudge(artifact_store().fetch(trained.model), precision, batch_size=batch_size)
    gold = Gold(world, judge)
    methods = []
    for aligner in config.aligners:
        result = result_of(found, aligner.name, PolicyResult)
        if result is not None and result.rollouts is not None:
            rollouts = pl.read_parquet(artifact_store().fetch(result.rollouts))
            methods.append(_of_policy(aligner.name, rollouts, gold, config.evaluate, seed))
    scores, golds = _sample(run_id, gold, precision, num_prompts, num_samples, seed)
    methods.append(
        frontier_of_best(
            scores,
            golds,
            [size for size in SIZES if size <= num_samples],
            confidence=config.evaluate.confidence,
            samples=config.evaluate.bootstrap_samples,
            seed=seed,
        )
    )
    return FrontierReport(
        run_id=run_id,
        gold=gold.name,
        num_prompts=num_prompts,
        num_samples=num_samples,
        confidence=config.evaluate.confidence,
        methods=tuple(methods),
    )


def keep_frontier(report: FrontierReport, folder: Path) -> tuple[Path, Path]:
    """Write the report and its picture into a folder and into the run's MLflow run; return where they are."""
    from rlhf.report.over_optimisation import picture

    folder.mkdir(parents=True, exist_ok=True)
    drawn, numbers = (folder / f"{report.run_id}-frontier{suffix}" for suffix in (".svg", ".json"))
    drawn.write_text(picture(report), encoding="utf-8")
    numbers.write_text(report.model_dump_json(indent=2), encoding="utf-8")
    config, _ = _run(report.run_id)
    with connect_tracking(config.name).run(report.run_id) as tracked:
        for path in (drawn, numbers):
            tracked.log_file(path, "frontier")
    return drawn, numbers


def _of_policy(
    name: str, rollouts: pl.DataFrame, gold: Gold, config: EvaluateConfig, seed: int
) -> MethodFrontier:
    from rlhf.evaluation.over_optimisation import frontier_of_policies

    judged = rollouts.with_columns(pl.Series("gold", gold.values(rollouts), pl.Float64))
    points = judged.group_by("iteration").agg(pl.mean("kl", "score", "gold")).sort("iteration")
    return frontier_of_policies(
        name,
        [
            FrontierPoint(label=f"iteration {iteration}", kl=kl, score=score, gold=value)
            for iteration, kl, score, value in points.iter_rows()
        ],
        confidence=config.confidence,
        samples=config.bootstrap_samples,
        seed=seed,
    )


def _sample(
    run_id: str, gold: Gold, precision: "Precision", num_prompts: int, num_samples: int, seed: int
) -> "tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]":
    """Return scores and gold of several SFT responses to each of some held-out prompts (P, K)."""
    import numpy as np
    import torch

    from rlhf.data.chat import decode_response, encode_prompt
    from rlhf.models.best_of_n import Chooser
    from rlhf.models.loading import load_policy

    config, found = _run(run_id)
    sft, reward = result_of(found, "sft", PolicyResult), result_of(found, "reward", RewardResult)
    data = result_of(found, "validate", ValidatedData)
    if sft is None or reward is None or data is None:
        raise NotFound(f"Run {run_id} has no reward model yet; let it go on until the stage `reward`.")
    store = artifact_store()
    policy, tokenizer = load_policy(store.fetch(sft.model), device=precision.device)
    chooser = Chooser.beside(
        policy,
        tokenizer,
        store.fetch(reward.model),
        n=num_samples,
        scoring=EnsembleScoring(),
        device=precision.device,
    )
    prompts = pl.read_parquet(store.fetch(data.held_out))
    chosen = prompts.sample(min(num_prompts, prompts.height), seed=seed)
    asked = chosen["prompt"].to_list()
    groups = chooser.draw(
        asked,
        [encode_prompt(tokenizer, messages) for messages in asked],
        max_new_tokens=config.evaluate.max_new_tokens,
        temperature=config.evaluate.temperature,
        batch_size=config.evaluate.batch_size,
        precision=precision,
        generator=torch.Generator().manual_seed(seed),
    )
    drawn = [completion for group in groups for completion in group.completions]
    samples = (
        chosen.select(pl.col("prompt_id", "prompt").repeat_by(num_samples))
        .explode("prompt_id", "prompt")
        .with_columns(
            pl.Series("response", [decode_response(tokenizer, one.ids) for one in drawn], pl.String),
            pl.Series("finished", [one.finished for one in drawn], pl.Boolean),
        )
    )
    golds = pl.Series(gold.values(samples), dtype=pl.Float64).to_numpy()
    return np.array([group.scores for group in groups]), golds.reshape(chosen.height, num_samples)


def _run(run_id: str) -> tuple[RunConfig, dict[str, StageEntry]]:
    stored = artifact_store().read(f"runs/{run_id}/config.json")
    if stored is None:
        raise NotFound(f"The store knows no run {run_id!r}; wanted the run id that `rlhf run` printed.")
    return RunConfig.model_validate_json(stored), entries(run_id)
