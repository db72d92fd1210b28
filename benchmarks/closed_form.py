"""PPO on a task whose optimum is known: how much of the optimal objective does it reach?

    python benchmarks/closed_form.py --seeds 0 1 2 3 4

Responses have one or two tokens of a vocabulary of 15, so all can be listed, each with a random score r.
The policy that maximises E[r] - beta KL(policy, reference) is reference * exp(r / beta), normalised, and its
objective is beta log E_reference[exp(r / beta)]. One JSON line per seed: `share` is the gain over start
divided by the gain of the optimum, computed exactly for the trained policy and not from samples.
"""

import argparse
import copy
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from rlhf.models.batches import collate, score_tokens
from rlhf.models.critic import ValueHead
from rlhf.models.precision import Precision, apply, attention_implementation
from rlhf.models.rendering import Renderer
from rlhf.training import ppo, rollout
from rlhf.training.actors import Actors
from rlhf.training.experience import learn_from
from rlhf.training.trained import Trained
from schemas.config import PPOConfig

PAD, EOS, VOCABULARY, BETA = 0, 1, 16, 0.5
PROMPT = [2, 3]
RESPONSES = [[EOS], *([a, b] for a in range(2, VOCABULARY) for b in range(1, VOCABULARY))]
PRECISION = Precision(threads=1, dtype="fp32")


class Table:
    """Stands where the reward model stands: a score for each response."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores
        self.rows = {tuple(response): row for row, response in enumerate(RESPONSES)}

    def normalised_scores(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Look up the score of what follows the prompt (B,)."""
        return self.scores[[self.rows[tuple(sequence[len(PROMPT) :])] for sequence in ids]]


@torch.no_grad()
def logprobs(policy: torch.nn.Module) -> Tensor:
    """Return the log-probability of each possible response."""
    batch = collate([PROMPT] * len(RESPONSES), RESPONSES, pad_id=PAD, device=torch.device("cpu"))
    return (score_tokens(policy, batch, temperature=1.0, pad_id=PAD) * batch.mask_BT).sum(1).double()


def study(seed: int, config: PPOConfig) -> dict[str, float]:
    """Train, and compare with the optimum."""
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, initializer_range=0.2,
        attn_implementation=attention_implementation("cpu"),
    )  # fmt: skip
    policy = LlamaForCausalLM(shape).eval()
    table: Any = Table(torch.randn(len(RESPONSES)))
    tokenizer: Any = None
    actors = Actors(
        policy=policy,
        frozen_reference=copy.deepcopy(policy).requires_grad_(False),
        critic=ValueHead(32),
        reward_model=table,
        renderer=Renderer(tokenizer, tokenizer),
        tokenizer=tokenizer,
        stop=frozenset({EOS}),
        pad_id=PAD,
        device=torch.device("cpu"),
    )
    trained = {
        "policy": Trained.by_adamw(policy, config.learning_rate),
        "critic": Trained.by_adamw(actors.critic, config.critic_learning_rate),
    }
    reference, scores = logprobs(policy), table.scores.double()
    for iteration in range(config.iterations):
        sampled, plan = rollout.collect(
            actors, [PROMPT] * config.batch_size, config, precision=PRECISION, seed=seed, iteration=iteration
        )
        experience = learn_from(sampled, config, kl_coef=config.kl_coef)
        ppo.update(
            actors,
            trained,
            experience,
            plan,
            config,
            kl_coef=config.kl_coef,
            precision=PRECISION,
            iteration=iteration,
        )
    found = logprobs(policy)
    start = (reference.exp() * scores).sum()
    optimum = BETA * torch.logsumexp(reference + scores / BETA, 0)
    reached = (found.exp() * (scores - BETA * (found - reference))).sum()
    return {
        "seed": seed,
        "start": round(start.item(), 4),
        "reached": round(reached.item(), 4),
        "optimum": round(optimum.item(), 4),
        "share": round(((reached - start) / (optimum - start)).item(), 4),
        "kl": round((found.exp() * (found - reference)).sum().item(), 4),
    }


def main() -> None:
    """Study the seeds and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--iterations", type=int, default=150)
    arguments = parser.parse_args()
    apply(PRECISION)
    rollout.encode_prompt = lambda _, ids: ids  # type: ignore[assignment,misc]  # there is no text here
    config = PPOConfig(
        iterations=arguments.iterations, batch_size=256, minibatch_size=128, epochs=2, max_new_tokens=2,
        learning_rate=2e-3, critic_learning_rate=1e-2, kl_coef=BETA, lam=1.0, value_clip_range=10.0,
        missing_eos_penalty=0.0, score_clip=100.0, shared_trunk=True, target_kl=None,
    )  # fmt: skip
    for seed in arguments.seeds:
        print(json.dumps(study(seed, config)), flush=True)


if __name__ == "__main__":
    main()
