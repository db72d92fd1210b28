"""What one iteration sampled and how it was scored.

Shapes: B responses, T response tokens.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rollout:
    """Sampled responses with what the update needs; tensors are right-padded and carry no gradient."""

    prompts: list[list[int]]
    """Token ids, as the policy saw them."""
    responses: list[list[int]]
    """Token ids, exactly as sampled, the stop id included."""
    mask_BT: Tensor
    """True where a response token is."""
    finished_B: Tensor
    """True where a stop id ended the response."""
    scores_B: Tensor
    """Normalised reward-model score, neither clipped nor penalised."""
    old_logprobs_BT: Tensor
    """Of the policy that sampled, computed as the update computes them."""
    sampler_logprobs_BT: Tensor
    """Of the same tokens, as the sampler computed them while it drew."""
    ref_logprobs_BT: Tensor
    values_BT: Tensor
    """Critic's value of the state in which each token was chosen."""
    entropy_BT: Tensor
    """Of the policy that sampled, in nats."""
