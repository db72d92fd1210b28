"""What an online aligner minimises on one micro-batch: the losses of policy and critic, and what else the recipe adds.

Shapes: B responses, T response tokens, R response tokens of all responses together, V vocabulary. Every term is a sum over tokens, divided by the count of
the whole minibatch, so that the gradients of its micro-batches add up to those of one pass.
"""

import torch
from torch import Tensor

from rlhf.algorithms.logprobs import entropy, token_logprobs
from rlhf.algorithms.losses import PolicyLoss, ValueLoss, kl_loss, policy_loss, response_loss, value_loss
from rlhf.models.precision import Precision, autocast
from rlhf.models.recompute import recomputing
from rlhf.training import processes
from rlhf.training.actors import Actors
from rlhf.training.experience import Experience
from rlhf.training.rollout import MicroBatch, micro_batch
from schemas.config import GRPOConfig, OnlineSection, PPOConfig, RLOOConfig


class Tally:
    """Sums over the micro-batches of one optimizer step; a device is not waited for until `metrics` asks."""

    def __init__(self, device: torch.device) -> None:
        self._has_critic = False
        self._sums = torch.zeros(5, dtype=torch.float64, device=device)
        self._deviation = torch.zeros((), device=device)

    def add(self, policy: PolicyLoss, value: ValueLoss | None) -> None:
        """Take in a micro-batch; without a critic there is no value."""
        self._has_critic = value is not None
        of_values = [policy.loss.new_zeros(())] * 2 if value is None else [value.loss, value.clipped]
        sums = (policy.loss, policy.kl, policy.clipped, *of_values)
        self._sums += torch.stack([term.detach().double() for term in sums])
        self._deviation = torch.maximum(self._deviation, policy.ratio_deviation)

    def metrics(self, num_tokens: int) -> dict[str, float]:
        """Return what is worth watching of all processes' micro-batches: the losses, and the rest per token."""
        policy_loss, kl, clipped, value_loss, value_clipped = processes.total(self._sums).tolist()
        found = {
            "policy_loss": policy_loss,
            "approx_kl": kl / num_tokens,
            "clip_fraction": clipped / num_tokens,
            "ratio_deviation": processes.total(self._deviation, largest=True).item(),
        }
        if self._has_critic:
            found |= {"value_loss": value_loss, "value_clip_fraction": value_clipped / num_tokens}
        return found


def accumulate_gradients(
    actors: Actors,
    experience: Experience,
    rows: MicroBatch,
    config: OnlineSection,
    *,
    kl_coef: float,
    precision: Precision,
    num_tokens: int,
    tally: Tally,
    critic_only: bool = False,
) -> None:
    """Add the gradients of some rows of a minibatch that has `num_tokens` response tokens."""
    rollout = experience.rollout
    batch = micro_batch(rollout.prompts, rollout.responses, rows, actors)
    here = (rows, slice(batch.mask_BT.shape[1]))
    models = (actors.policy, actors.critic) if config.gradient_checkpointing else ()
    with autocast(precision), recomputing(*filter(None, models)):
        logits_RV, values_BT = actors.logits_and_values(batch)
    logprobs_R = token_logprobs(logits_RV, batch.tokens, temperature=config.temperature, pad_id=actors.pad_id)
    logprobs_BT = batch.spread(logprobs_R)
    policy, value = _policy_loss(logprobs_BT, batch.mask_BT, experience, here, config, num_tokens), None
    loss = torch.zeros((), device=actors.device) if critic_only else policy.loss
    if isinstance(config, PPOConfig):
        assert experience.returns_BT is not None, "with a critic there are returns"
        value = value_loss(
            values_BT,
            rollout.values_BT[here],
            experience.returns_BT[here],
            batch.mask_BT,
            clip_range=config.value_clip_range,
            num_tokens=num_tokens,
        )
        loss = loss + config.value_coef * value.loss
    if config.kl.place == "loss" and not critic_only:
        loss = loss + kl_coef * kl_loss(
            logprobs_BT,
            rollout.old_logprobs_BT[here],
            rollout.ref_logprobs_BT[here],
            batch.mask_BT,
            estimator=config.kl.estimator,
            num_tokens=num_tokens,
            weights_BT=token_weights(batch.mask_BT, config, num_tokens),
        )
    if config.entropy_coef and not critic_only:
        entropy_R = entropy(logits_RV, temperature=config.temperature, pad_id=actors.pad_id)
        loss = loss - config.entropy_coef * entropy_R.sum() / num_tokens
    loss.backward()
    tally.add(policy, value)


def _policy_loss(
    logprobs_BT: Tensor,
    mask_BT: Tensor,
    experience: Experience,
    here: tuple[MicroBatch, slice],
    config: OnlineSection,
    num_tokens: int,
) -> PolicyLoss:
    old_BT, advantages_BT = experience.rollout.old_logprobs_BT[here], experience.advantages_BT[here]
    weights_BT = None if experience.weights_BT is None else experience.weights_BT[here]
    if isinstance(config, RLOOConfig):
        return response_loss(
            logprobs_BT,
            old_BT,
            advantages_BT[:, :1],
            mask_BT,
            clip_range=config.clip_range,
            num_responses=config.minibatch_size,
            dual_clip=config.dual_clip,
            weights_B1=weights_BT,
        )
    if (of_tokens := token_weights(mask_BT, config, num_tokens)) is not None:
        weights_BT = of_tokens if weights_BT is None else weights_BT * of_tokens
    return policy_loss(
        logprobs_BT,
        old_BT,
        advantages_BT,
        mask_BT,
        clip_range=config.clip_range,
        num_tokens=num_tokens,
        dual_clip=config.dual_clip,
        weights_BT=weights_BT,
    )


def token_weights(mask_BT: Tensor, config: OnlineSection, num_tokens: int) -> Tensor | None:
    """Return what a token of each response counts (B, 1) in a mean over all tokens of the minibatch; None: all alike.

    GRPO's mean over responses of their tokens' mean is that mean with each token weighed by 1 / length (Shao et al. 2024,
    eq. 3); Dr. GRPO's constant is the longest response that there can be (Liu et al. 2025, section 3.2).
    """
    if not isinstance(config, GRPOConfig) or config.loss == "dapo":
        return None
    lengths_B1 = mask_BT.sum(dim=1, keepdim=True)
    if config.loss == "dr_grpo":
        lengths_B1 = torch.full_like(lengths_B1, config.max_new_tokens)
    return num_tokens / (config.minibatch_size * lengths_B1)
