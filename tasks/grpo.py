"""Stage `grpo`: reinforce; responses are worth what they score relative to the others to their prompt."""

from schemas.config import GRPOConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult
from tasks.online import reinforce
from tasks.stage import stage
from tasks.work import StageWork


@stage("grpo")
def train_grpo(
    work: StageWork,
    sft: ModelRef,
    reward: ModelRef,
    prompts: DatasetRef,
    held_out: DatasetRef,
    config: GRPOConfig,
) -> PolicyResult:
    """Optimise the reward model's score by GRPO; what it sampled on the way is published too."""
    from rlhf.training import ppo

    return reinforce(work, ppo.fit, sft, reward, prompts, held_out, config)
