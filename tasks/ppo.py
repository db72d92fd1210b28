"""Stage `ppo`: reinforce, tethered to the SFT policy by KL."""

from schemas.config import PPOConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult
from tasks.stage import stage
from tasks.work import StageWork


@stage("ppo")
def train_ppo(
    work: StageWork,
    sft: ModelRef,
    reward: ModelRef,
    prompts: DatasetRef,
    held_out: DatasetRef,
    config: PPOConfig,
) -> PolicyResult:
    """Optimise the reward model's score by PPO; what it sampled on the way is published too.

    `held_out` are the pairs that the reward model was not trained on.
    """
    from rlhf.models.sampling import Sampler, sample
    from rlhf.training import ppo

    sampler: Sampler = sample
    if config.vllm_url is not None:
        from rlhf.training.vllm import VLLMSampler

        sampler = VLLMSampler.connect(config.vllm_url, device=work.precision.device)
    out = work.folder / "model"
    fitted = ppo.fit(
        work.fetch(sft),
        work.fetch(reward),
        work.read(prompts),
        config,
        seed=work.run.seed,
        precision=work.precision,
        on_step=work.on_step,
        out=out,
        preferences=work.read(held_out),
        checkpoints=work.checkpoints,
        sampler=sampler,
    )
    return PolicyResult(
        model=work.publish_model(out, "policy"),
        rollouts=work.publish_table(fitted.rollouts, "rollouts"),
        metrics=fitted.metrics,
    )
