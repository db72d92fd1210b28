"""Stages `reward` and `probe`: learn the comparison, and ask what it has learnt."""

from schemas.config import DataConfig, EvaluateConfig, RewardConfig
from schemas.pipeline import PipelineRun
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import Probe, ProbeResult, RewardResult
from tasks.pretrain import import_base
from tasks.stage import stage
from tasks.work import StageWork


def reward_base(run: PipelineRun, sft: ModelRef, config: RewardConfig) -> ModelRef:
    """Return the model that the reward model starts from: the SFT policy, or the base that its section names."""
    return import_base.named("reward-base")(run, config.base).model if config.base else sft


@stage("reward")
def train_reward(
    work: StageWork,
    start: ModelRef,
    preferences: DatasetRef,
    rankings: DatasetRef | None,
    rater_weights: dict[str, float],
    candidates: DatasetRef,
    config: RewardConfig,
) -> RewardResult:
    """Train the reward model on comparisons; its scale is set on the SFT policy's own responses."""
    from rlhf.data.splits import split_by_prompt
    from rlhf.data.tokens import check_pairs
    from rlhf.evaluation.judged_pairs import accuracy, judge_pairs, longer_accuracy
    from rlhf.models.loading import load_tokenizer
    from rlhf.training import reward

    out, base, table = work.folder / "model", work.fetch(start), work.read(preferences)
    known, held_out = split_by_prompt(table, config.held_out_fraction, work.run.seed)
    fitted = reward.fit(
        base,
        known,
        work.read(rankings) if rankings else None,
        work.read(candidates),
        config,
        rater_weights=rater_weights,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
        out=out,
    )
    judged = judge_pairs(
        out,
        held_out,
        max_length=config.max_length,
        batch_size=4 * config.batch_size,
        precision=work.precision,
    )
    found, longer = accuracy(judged), longer_accuracy(judged)
    return RewardResult(
        model=work.publish_model(out, "reward"),
        held_out=work.publish_table(held_out, "preferences"),
        tokens=check_pairs(load_tokenizer(base), table, max_length=config.max_length),
        accuracy=found,
        longer_baseline=longer,
        score_mean=fitted.score_mean,
        score_std=fitted.score_std,
        metrics=fitted.metrics | {"held_out_accuracy": found.value, "longer_baseline": longer.value},
    )


@stage("probe")
def probe_reward(
    work: StageWork,
    reward: ModelRef,
    held_out: DatasetRef,
    data: DataConfig,
    trained: RewardConfig,
    config: EvaluateConfig,
) -> ProbeResult:
    """Describe the reward model on held-out pairs and, where the world is known, on pairs that are equal but for one flaw."""
    from rlhf.evaluation.judged_pairs import judge_pairs
    from rlhf.evaluation.reward_quality import describe

    judged = judge_pairs(
        work.fetch(reward),
        work.read(held_out),
        max_length=trained.max_length,
        batch_size=config.batch_size,
        precision=work.precision,
    )
    quality = describe(
        judged, confidence=config.confidence, samples=config.bootstrap_samples, seed=work.run.seed
    )
    if quality.mistakes:
        rows = [mistake.model_dump() for mistake in quality.mistakes]
        work.tracked.log_table({name: [row[name] for row in rows] for name in rows[0]}, "mistakes.json")
    probes = _probes(work, reward, config) if data.source == "helpdesk" else ()
    return ProbeResult(
        quality=quality,
        probes=probes,
        metrics=quality.numbers() | {f"{probe.flaw}_accuracy": probe.accuracy.value for probe in probes},
    )


def _probes(work: StageWork, reward: ModelRef, config: EvaluateConfig) -> tuple[Probe, ...]:
    from rlhf.data.helpdesk.world import World
    from rlhf.evaluation import probes

    return probes.probe_reward(
        work.fetch(reward),
        World(work.run.seed),
        num_pairs=config.num_prompts,
        batch_size=config.batch_size,
        confidence=config.confidence,
        seed=work.run.seed,
        precision=work.precision,
    )
