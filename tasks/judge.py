"""Stage `judge` (a reward model for evaluation alone), and the judge that a recipe asks for."""

import hashlib
import json
from typing import TYPE_CHECKING

from schemas.config import EvaluateConfig, RewardConfig
from schemas.errors import ConfigError
from schemas.pipeline import PipelineRun
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PreferencesResult
from schemas.settings import Settings
from tasks.feedback import feedback_store
from tasks.reward import train_reward
from tasks.work import StageWork

if TYPE_CHECKING:
    from rlhf.evaluation.judges import Judge


def train_judge(
    run: PipelineRun,
    start: ModelRef,
    collected: PreferencesResult,
    candidates: DatasetRef,
    config: RewardConfig,
) -> ModelRef | None:
    """Train a reward model on the preferences that were kept for it; None where the recipe keeps none."""
    if collected.judging is None:
        return None
    return train_reward.named("judge")(
        run, start, collected.judging, collected.rankings, collected.rater_weights, candidates, config
    ).model


def choose(
    work: StageWork, judge: ModelRef | None, policy: ModelRef, baseline: DatasetRef, config: EvaluateConfig
) -> "Judge":
    """Return the judge of the recipe, ready to compare."""
    from rlhf.evaluation.judges import ColumnJudge
    from rlhf.evaluation.reward_judge import RewardJudge

    if config.judge == "people":
        from rlhf.evaluation.people import PeopleJudge

        key = comparison_key(policy, baseline, config)
        # The name is on the page that raters see: it must not say which policy is on trial.
        name = f"{work.run.name}-pairs-{key[-6:]}"
        return PeopleJudge(feedback_store(), key, config.people, name=name, seed=work.run.seed)
    if config.judge == "llm":
        from rlhf.evaluation.llm_judge import LLMJudge

        settings = Settings()
        if settings.judge_url is None:
            raise ConfigError(
                "evaluate.judge=llm, but RLHF_JUDGE_URL is not set; set it to the base URL of an OpenAI-compatible "
                "endpoint, up to /v1."
            )
        secret = settings.judge_key.get_secret_value() if settings.judge_key else None
        return LLMJudge(settings.judge_url, secret, config.llm)
    if config.judge == "evaluation_reward":
        if judge is None:
            raise ConfigError(
                "evaluate.judge=evaluation_reward, and no such model was given; name one with --judge."
            )
        return RewardJudge(work.fetch(judge), work.precision, batch_size=config.batch_size)
    return ColumnJudge("gold" if config.judge == "utility" else "score")


def comparison_key(policy: ModelRef, baseline: DatasetRef, config: EvaluateConfig) -> str:
    """Return the key of the batch in which people compare a policy with a baseline's samples."""
    parts = [
        policy.digest,
        baseline.digest,
        config.model_dump(mode="json", exclude={"people", "llm", "safety"}),
    ]
    return f"verdicts-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]}"


def verdicts_digest(
    policy: ModelRef, baseline: DatasetRef | None, config: EvaluateConfig, **_: object
) -> str:
    """Return what tells one state of people's verdicts from another; the same for all other judges."""
    return "" if baseline is None else answers_digest(policy, baseline, config)


def answers_digest(policy: ModelRef, baseline: DatasetRef, config: EvaluateConfig) -> str:
    """Return the same for a policy and the samples that it is compared with."""
    if config.judge != "people":
        return ""
    from rlhf.feedback import batches, collected

    batch = batches.by_key(feedback_store(), comparison_key(policy, baseline, config))
    if batch is None:
        return "nobody was asked"
    standing = [answer._asdict() for answer in collected.standing(feedback_store(), batch.id)]
    return hashlib.sha256(json.dumps(standing).encode()).hexdigest()
