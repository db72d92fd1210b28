"""Stages `reward` and `probe`: learn the comparison, and ask what it has learnt."""

from schemas.config import DataConfig, EvaluateConfig, RewardConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import ProbeResult, RewardResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("reward")
def train_reward(
    work: StageWork, sft: ModelRef, preferences: DatasetRef, candidates: DatasetRef, config: RewardConfig
) -> RewardResult:
    """Train the reward model on pairs; its scale is set on the SFT policy's own responses."""
    from rlhf.data.tokens import check_pairs
    from rlhf.evaluation.intervals import wilson
    from rlhf.models.loading import load_tokenizer
    from rlhf.training import reward

    out, table = work.folder / "model", work.read(preferences)
    tokens = check_pairs(load_tokenizer(work.fetch(sft)), table, max_length=config.max_length)
    fitted = reward.fit(
        work.fetch(sft),
        table,
        work.read(candidates),
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
        out=out,
    )
    accuracy = wilson(fitted.correct, fitted.pairs, 0.95)
    longer = wilson(fitted.longer_correct, fitted.pairs, 0.95)
    return RewardResult(
        model=work.publish_model(out, "reward"),
        tokens=tokens,
        accuracy=accuracy,
        longer_baseline=longer,
        score_mean=fitted.score_mean,
        score_std=fitted.score_std,
        metrics=fitted.metrics | {"held_out_accuracy": accuracy.value, "longer_baseline": longer.value},
    )


@stage("probe")
def probe_reward(work: StageWork, reward: ModelRef, data: DataConfig, config: EvaluateConfig) -> ProbeResult:
    """Measure what the reward model tells apart in otherwise equal responses, where the world is known."""
    from rlhf.data.helpdesk.world import World
    from rlhf.evaluation import probes

    if data.source != "helpdesk":
        return ProbeResult()
    found = probes.probe_reward(
        work.fetch(reward),
        World(work.run.seed),
        num_pairs=config.num_prompts,
        batch_size=config.batch_size,
        confidence=config.confidence,
        seed=work.run.seed,
        precision=work.precision,
    )
    return ProbeResult(
        probes=found, metrics={f"{probe.flaw}_accuracy": probe.accuracy.value for probe in found}
    )
