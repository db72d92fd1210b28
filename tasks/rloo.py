"""Stage `rloo`: reinforce; what a response is worth shows in the others to its prompt."""

from schemas.config import RLOOConfig
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import PolicyResult
from tasks.online import reinforce
from tasks.stage import stage
from tasks.work import StageWork


@stage("rloo")
def train_rloo(
    work: StageWork,
    sft: ModelRef,
    reward: ModelRef,
    prompts: DatasetRef,
    held_out: DatasetRef,
    config: RLOOConfig,
) -> PolicyResult:
    """Optimise the reward model's score by RLOO; what it sampled on the way is published too."""
    from rlhf.training import ppo

    return reinforce(work, ppo.fit, sft, reward, prompts, held_out, config)
