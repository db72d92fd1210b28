"""What PPO minimises on one micro-batch: the losses of policy and critic, and what else the recipe adds.

Shapes: B responses, T response tokens, V vocabulary. Every term is a sum over tokens, divided by the count of
the whole minibatch, so that the gradients of its micro-batches add up to those of one pass.
"""

from dataclasses import dataclass

from torch import Tensor

from rlhf.algorithms.logprobs import entropy, policy_logits, token_logprobs
from rlhf.algorithms.losses import PolicyLoss, ValueLoss, kl_loss, policy_loss, value_loss
from rlhf.algorithms.masks import masked_sum
from rlhf.models.batches import ResponseBatch
from rlhf.models.precision import Precision, autocast
from rlhf.training.actors import Actors
from rlhf.training.experience import Experience
from rlhf.training.rollout import MicroBatch, micro_batch
from schemas.config import PPOConfig


@dataclass(slots=True)
class Tally:
    """Sums over the micro-batches of one optimizer step."""

    policy_loss: float = 0.0
    value_loss: float = 0.0
    clipped: float = 0.0
    value_clipped: float = 0.0
    kl: float = 0.0
    ratio_deviation: float = 0.0

    def add(self, policy: PolicyLoss, value: ValueLoss) -> None:
        """Take in a micro-batch."""
        self.policy_loss += policy.loss.item()
        self.value_loss += value.loss.item()
        self.clipped += policy.clipped.item()
        self.value_clipped += value.clipped.item()
        self.kl += policy.kl.item()
        self.ratio_deviation = max(self.ratio_deviation, policy.ratio_deviation.item())

    def metrics(self, num_tokens: int) -> dict[str, float]:
        """Return what is worth watching, per token."""
        return {
            "policy_loss": self.policy_loss,
            "value_loss": self.value_loss,
            "approx_kl": self.kl / num_tokens,
            "clip_fraction": self.clipped / num_tokens,
            "value_clip_fraction": self.value_clipped / num_tokens,
            "ratio_deviation": self.ratio_deviation,
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
        raw_BTV, values_BT = actors.logits_and_values(batch)
    logits_BTV = policy_logits(raw_BTV, temperature=config.temperature, pad_id=actors.pad_id)
    logprobs_BT = token_logprobs(logits_BTV, batch.responses_BT)
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
            loss = loss - config.entropy_coef * _entropy(logits_BTV, batch, num_tokens)
    loss.backward()
    tally.add(policy, value)


def _entropy(logits_BTV: Tensor, batch: ResponseBatch, num_tokens: int) -> Tensor:
    return masked_sum(entropy(logits_BTV), batch.mask_BT) / num_tokens
