"""A rollout with what the update learns from it, and the two ways to look at that: as numbers and as a table.

Shapes: B responses, T response tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from rlhf.algorithms.advantages import explained_variance, gae, group_relative, leave_one_out
from rlhf.algorithms.kl import k1, k3
from rlhf.algorithms.losses import importance_weights
from rlhf.algorithms.masks import masked_mean, masked_sum, whiten
from rlhf.algorithms.rewards import shape_scores, token_rewards
from rlhf.algorithms.rollouts import Rollout
from rlhf.data.chat import decode_response
from schemas.config import GroupSection, GRPOConfig, OnlineSection, PPOConfig, RLOOConfig

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Experience:
    """A rollout with what the update learns from; tensors are (B, T) and hold 0 in the padding."""

    rollout: Rollout
    rewards_BT: Tensor
    kl_BT: Tensor
    advantages_BT: Tensor
    """Whitened over the batch with a critic; without one, the same for each token of a response."""
    returns_BT: Tensor | None
    """None without a critic."""
    weights_BT: Tensor | None
    """Truncated importance weights of policy over sampler, where the configuration asks for them; (B, 1) where a response is
    one action."""


def learn_from(rollout: Rollout, config: OnlineSection, *, kl_coef: float) -> Experience:
    """Turn scores into rewards, and rewards into advantages and, with a critic, returns."""
    mask_BT = rollout.mask_BT
    kl_BT = k1(rollout.old_logprobs_BT, rollout.ref_logprobs_BT).masked_fill(~mask_BT, 0.0)
    scores_B = shape_scores(
        rollout.scores_B,
        rollout.finished_B,
        mask_BT.sum(dim=1),
        score_clip=config.score_clip,
        missing_eos_penalty=config.missing_eos_penalty,
        length_penalty=config.length_penalty,
    )
    penalty = kl_coef if config.kl.place == "reward" else 0.0
    rewards_BT = token_rewards(scores_B, kl_BT, mask_BT, kl_coef=penalty)
    advantages_BT, returns_BT = _advantages(rewards_BT, rollout, config)
    return Experience(
        rollout=rollout,
        rewards_BT=rewards_BT,
        kl_BT=kl_BT,
        advantages_BT=advantages_BT,
        returns_BT=returns_BT,
        weights_BT=_weights(rollout, config),
    )


def _advantages(rewards_BT: Tensor, rollout: Rollout, config: OnlineSection) -> tuple[Tensor, Tensor | None]:
    mask_BT = rollout.mask_BT
    if isinstance(config, PPOConfig):
        advantages_BT, returns_BT = gae(
            rewards_BT, rollout.values_BT, mask_BT, gamma=config.gamma, lam=config.lam
        )
        return whiten(advantages_BT, mask_BT), returns_BT
    assert isinstance(config, GroupSection), "there is no other kind"
    # The rows of a group lie together: `ppo.fit` asks each prompt so many times in a row.
    rewards_GK = rewards_BT.sum(dim=1).view(-1, config.group_size)
    if isinstance(config, GRPOConfig):
        advantages_GK = group_relative(rewards_GK, scale=config.scale_rewards)
    else:
        advantages_GK = leave_one_out(rewards_GK)
    return advantages_GK.view(-1, 1) * mask_BT, None


def _weights(rollout: Rollout, config: OnlineSection) -> Tensor | None:
    if config.importance_cap is None:
        return None
    logprobs_BT, sampler_BT, mask_BT = rollout.old_logprobs_BT, rollout.sampler_logprobs_BT, rollout.mask_BT
    if isinstance(config, RLOOConfig):
        logprobs_BT, sampler_BT = (
            values_BT.sum(dim=1, keepdim=True) for values_BT in (logprobs_BT, sampler_BT)
        )
        mask_BT = mask_BT[:, :1]
    return importance_weights(logprobs_BT, sampler_BT, mask_BT, cap=config.importance_cap)


def describe(experience: Experience) -> dict[str, float]:
    """Return what is worth watching about an iteration's responses; per response, in nats and tokens."""
    rollout = experience.rollout
    mask_BT = rollout.mask_BT
    num_responses = len(rollout.responses)
    kl_k3 = masked_sum(k3(rollout.old_logprobs_BT, rollout.ref_logprobs_BT), mask_BT)
    found = {
        "score": rollout.scores_B.mean().item(),
        "score_std": rollout.scores_B.std().item(),
        "kl": experience.kl_BT.sum().item() / num_responses,
        "kl_k3": kl_k3.item() / num_responses,
        "reward": experience.rewards_BT.sum().item() / num_responses,
        "entropy": masked_mean(rollout.entropy_BT, mask_BT).item(),
        "response_length": int(mask_BT.sum()) / num_responses,
        "eos_rate": rollout.finished_B.float().mean().item(),
        "identical_share": 1.0 - len({tuple(ids) for ids in rollout.responses}) / num_responses,
        "sampler_gap": (rollout.old_logprobs_BT - rollout.sampler_logprobs_BT)[mask_BT].abs().max().item(),
    }
    if experience.returns_BT is not None:
        variance = explained_variance(rollout.values_BT, experience.returns_BT, mask_BT)
        found["explained_variance"] = variance.item()
    return found


def table(
    tokenizer: PreTrainedTokenizerFast, asked: pl.DataFrame, experience: Experience, iteration: int
) -> pl.DataFrame:
    """Return the iteration's responses as rows of the table `rollouts`."""
    import polars as pl  # a machine that only measures the update needs no tables

    rollout = experience.rollout
    return (
        asked.select("prompt_id", "prompt")
        .with_columns(
            pl.lit(iteration).cast(pl.Int64).alias("iteration"),
            pl.Series("response", [decode_response(tokenizer, ids) for ids in rollout.responses]),
            pl.Series("score", rollout.scores_B.double().tolist()),
            pl.Series("kl", experience.kl_BT.sum(dim=1).double().tolist()),
            pl.Series("finished", rollout.finished_B.tolist()),
        )
        .select("iteration", "prompt_id", "prompt", "response", "score", "kl", "finished")
    )
