"""What PPO minimises on one micro-batch: the losses of policy and critic, and what else the recipe adds.

Shapes: B responses, T response tokens, R response tokens of all responses together, V vocabulary. Every term is a sum over tokens, divided by the count of
the whole minibatch, so that the gradients of its micro-batches add up to those of one pass.
"""

import torch

from rlhf.algorithms.logprobs import entropy, token_logprobs
from rlhf.algorithms.losses import PolicyLoss, ValueLoss, kl_loss, policy_loss, value_loss
from rlhf.models.precision import Precision, autocast
from rlhf.training import processes
from rlhf.training.actors import Actors
from rlhf.training.experience import Experience
from rlhf.training.rollout import MicroBatch, micro_batch
from schemas.config import PPOConfig


class Tally:
    """Sums over the micro-batches of one optimizer step; a device is not waited for until `metrics` asks."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(5, dtype=torch.float64, device=device)
        self._deviation = torch.zeros((), device=device)

    def add(self, policy: PolicyLoss, value: ValueLoss) -> None:
        """Take in a micro-batch."""
        sums = (policy.loss, value.loss, policy.kl, policy.clipped, value.clipped)
        self._sums += torch.stack([term.detach().double() for term in sums])
        self._deviation = torch.maximum(self._deviation, policy.ratio_deviation)

    def metrics(self, num_tokens: int) -> dict[str, float]:
        """Return what is worth watching of all processes' micro-batches: the losses, and the rest per token."""
        policy_loss, value_loss, kl, clipped, value_clipped = processes.total(self._sums).tolist()
        return {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "approx_kl": kl / num_tokens,
            "clip_fraction": clipped / num_tokens,
            "value_clip_fraction": value_clipped / num_tokens,
            "ratio_deviation": processes.total(self._deviation, largest=True).item(),
        }


def accumulate_gradients(
    actors: Actors,
    experience: Experience,
    rows: MicroBatch,
    config: PPOConfig,
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
    with autocast(precision):
        logits_RV, values_BT = actors.logits_and_values(batch)
    logprobs_R = token_logprobs(logits_RV, batch.tokens, temperature=config.temperature, pad_id=actors.pad_id)
    logprobs_BT = batch.spread(logprobs_R)
    policy = policy_loss(
        logprobs_BT,
        rollout.old_logprobs_BT[here],
        experience.advantages_BT[here],
        batch.mask_BT,
        clip_range=config.clip_range,
        num_tokens=num_tokens,
        dual_clip=config.dual_clip,
        weights_BT=None if experience.weights_BT is None else experience.weights_BT[here],
    )
    value = value_loss(
        values_BT,
        rollout.values_BT[here],
        experience.returns_BT[here],
        batch.mask_BT,
        clip_range=config.value_clip_range,
        num_tokens=num_tokens,
    )
    loss = config.value_coef * value.loss
    if not critic_only:
        loss = loss + policy.loss
        if config.kl.place == "loss":
            loss = loss + kl_coef * kl_loss(
                logprobs_BT,
                rollout.old_logprobs_BT[here],
                rollout.ref_logprobs_BT[here],
                batch.mask_BT,
                estimator=config.kl.estimator,
                num_tokens=num_tokens,
            )
        if config.entropy_coef:
            entropy_R = entropy(logits_RV, temperature=config.temperature, pad_id=actors.pad_id)
            loss = loss - config.entropy_coef * entropy_R.sum() / num_tokens
    loss.backward()
    tally.add(policy, value)
