"""The four models of RLHF: policy, reference, critic, reward model.

Shapes: B responses, T response tokens, R response tokens of all responses together, V vocabulary, D hidden width.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rlhf.data.chat import stop_ids
from rlhf.models.batches import ResponseBatch, logits_and_hidden, response_logits
from rlhf.models.critic import Critic, ValueHead
from rlhf.models.loading import attach_lora, load_policy
from rlhf.models.recompute import allow_recomputing
from rlhf.models.rendering import Renderer
from rlhf.models.reward import RewardModel
from rlhf.models.sampling import Sampler, sample
from rlhf.models.sharing import share_frozen
from schemas.config.models import LoraConfig
from schemas.config.reward import EnsembleScoring


@dataclass(frozen=True, slots=True, kw_only=True)
class Actors:
    """All in evaluation mode for good: no dropout, nor the adapters', falsifies a log-probability."""

    policy: PreTrainedModel | PeftModel
    frozen_reference: PreTrainedModel | None
    """A copy of the policy as it began; None with LoRA: there it is the policy without its adapters."""
    critic: Critic | ValueHead | None
    """A model of its own, a head on the policy's trunk, or none."""
    reward_model: RewardModel
    renderer: Renderer
    """What the reward model reads of the policy's responses."""
    tokenizer: PreTrainedTokenizerFast
    stop: frozenset[int]
    pad_id: int
    device: torch.device
    sampler: Sampler = sample
    """What draws from the policy."""

    def logits_and_values(self, batch: ResponseBatch) -> tuple[Tensor, Tensor]:
        """Return the policy's own logits (R, V) and the values (B, T) of the states they belong to: 0 without a critic."""
        if self.critic is None:
            return response_logits(self.policy, batch), torch.zeros(batch.mask_BT.shape, device=self.device)
        if isinstance(self.critic, ValueHead):
            logits_RV, hidden_RD = logits_and_hidden(self.policy, batch)
            return logits_RV, batch.spread(self.critic(hidden_RD))
        return response_logits(self.policy, batch), self.critic(batch)

    @contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """Yield the policy as it was before the first step."""
        if self.frozen_reference is not None:
            yield self.frozen_reference
        else:
            assert isinstance(self.policy, PeftModel)
            with self.policy.disable_adapter():
                yield self.policy


def load_actors(
    sft: Path,
    reward: Path,
    *,
    lora: LoraConfig | None,
    seed: int,
    device: str,
    with_critic: bool = True,
    shared_trunk: bool = False,
    scoring: EnsembleScoring | None = None,
    sampler: Sampler = sample,
    four_bit: bool = False,
    recompute: bool = False,
) -> Actors:
    """Load the SFT policy, its frozen reference, the reward model, and the critic that starts from it.

    With `shared_trunk` the critic is a fresh head on the policy instead; with a reward model of another tokenizer it starts
    from a copy of the policy.
    """
    policy, tokenizer = load_policy(sft, device=device, four_bit=four_bit)
    stop = stop_ids(policy, tokenizer)
    renderer = Renderer.between(tokenizer, reward)
    with torch.random.fork_rng():  # adapters draw their first weights from the global generator
        torch.manual_seed(seed)
        reference = copy.deepcopy(policy).requires_grad_(False) if lora is None else None
        trained = policy if lora is None else attach_lora(policy, lora, "CAUSAL_LM")
        critic: Critic | ValueHead | None = None
        if with_critic and shared_trunk:
            critic = ValueHead(policy.get_output_embeddings().in_features).to(device)
        elif with_critic and renderer.shares_ids:
            critic = Critic.from_reward_model(reward, lora=lora, device=device)
        elif with_critic:
            critic = Critic.from_policy(sft, lora=lora, device=device)
    if recompute:
        allow_recomputing(policy)
        if isinstance(critic, Critic):
            allow_recomputing(critic.model)
    trained.eval()
    reward_model = RewardModel.load(reward, device=device, scoring=scoring)
    reward_model.model.requires_grad_(False)
    if lora is not None:
        # Adapters and heads are trained, and what they sit on is the same: a base is in memory once.
        share_frozen(trained, reward_model.model, *([critic] if critic else []))
    pad_id = tokenizer.pad_token_id
    assert isinstance(pad_id, int)  # load_policy checks it
    return Actors(
        policy=trained,
        frozen_reference=reference,
        critic=critic,
        reward_model=reward_model,
        renderer=renderer,
        tokenizer=tokenizer,
        stop=stop,
        pad_id=pad_id,
        device=torch.device(device),
        sampler=sampler,
    )
