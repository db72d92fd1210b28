"""Stage `ppo`: reinforce, tethered to the SFT policy by KL."""

from schemas.config import PPOConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult
from tasks.online import reinforce
from tasks.stage import stage
from tasks.work import StageWork


@stage("ppo")
def train_ppo(
    work: StageWork,
    sft: ModelRef,
    reward: ModelRef,
    prompts: DatasetRef,
    held_out: DatasetRef,
    demonstrations: DatasetRef,
    corpus: DatasetRef | None,
    config: PPOConfig,
) -> PolicyResult:
    """Optimise the reward model's score by PPO, with `ptx` beside it; what it sampled on the way is published too."""
    from rlhf.training import ppo

    mixed = None
    if config.ptx is not None:
        mixed = demonstrations if config.ptx.source == "demonstrations" else corpus
    return reinforce(work, ppo.fit, sft, reward, prompts, held_out, config, mixed=mixed)
