"""Choose the aligner that a section asks for; each has a file of its own."""

from schemas.config import AlignerConfig, PPOConfig
from schemas.pipeline import PipelineRun
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult, RewardResult
from tasks.dpo import train_dpo
from tasks.ppo import train_ppo


def align(
    run: PipelineRun,
    sft: ModelRef,
    reward: RewardResult,
    prompts: DatasetRef,
    preferences: DatasetRef,
    config: AlignerConfig,
) -> PolicyResult:
    """Train one aligner from the SFT policy; the stage carries the aligner's name."""
    if isinstance(config, PPOConfig):
        return train_ppo.named(config.name)(run, sft, reward.model, prompts, reward.held_out, config)
    return train_dpo.named(config.name)(run, sft, preferences, config)
