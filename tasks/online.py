"""What the stages share whose aligner samples while it learns."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from schemas.config import OnlineSection
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult
from tasks.work import StageWork

if TYPE_CHECKING:
    from rlhf.training.ppo import PPOFit


def reinforce(
    work: StageWork,
    fit: Callable[..., "PPOFit"],
    sft: ModelRef,
    reward: ModelRef,
    prompts: DatasetRef,
    held_out: DatasetRef,
    config: OnlineSection,
    *,
    mixed: DatasetRef | None = None,
) -> PolicyResult:
    """Optimise the reward model's score, and publish the policy with what it sampled on the way.

    `held_out` are the pairs that the reward model was not trained on. `fit` is handed over, because a stage's key follows the
    code that the stage's own module imports.
    """
    from rlhf.models.sampling import Sampler, sample

    sampler: Sampler = sample
    if config.vllm_url is not None:
        from rlhf.training.vllm import VLLMSampler

        sampler = VLLMSampler.connect(config.vllm_url, device=work.precision.device)
    out = work.folder / "model"
    fitted = fit(
        work.fetch(sft),
        work.fetch(reward),
        work.read(prompts),
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
        out=out,
        preferences=work.read(held_out),
        mixed=work.read(mixed) if mixed else None,
        checkpoints=work.checkpoints,
        sampler=sampler,
    )
    return PolicyResult(
        model=work.publish_model(out, "policy"),
        rollouts=work.publish_table(fitted.rollouts, "rollouts"),
        metrics=fitted.metrics,
    )
