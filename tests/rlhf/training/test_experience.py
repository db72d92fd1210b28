import torch

from rlhf.algorithms.rollouts import Rollout
from rlhf.training.experience import learn_from
from schemas.config import PPOConfig


def test_scores_become_rewards_and_rewards_become_advantages_by_the_definitions():
    mask = torch.tensor([[True, True, True], [True, True, False]])
    old, ref = (
        torch.tensor([[-1.0, -2.0, -0.5], [-0.2, -3.0, 0.0]]),
        torch.tensor([[-1.5, -1.0, -0.5], [-0.7, -2.0, 0.0]]),
    )
    values = torch.tensor([[0.3, -0.1, 0.2], [0.5, 0.4, 0.0]])
    rollout = Rollout(
        prompts=[[2], [2]], responses=[[5, 6, 1], [5, 6]], mask_BT=mask, finished_B=torch.tensor([True, False]),
        scores_B=torch.tensor([7.0, 0.5]), old_logprobs_BT=old, ref_logprobs_BT=ref, values_BT=values,
        entropy_BT=torch.zeros(2, 3), sampler_logprobs_BT=old,
    )  # fmt: skip
    config = PPOConfig(gamma=0.9, lam=0.5, score_clip=5.0, missing_eos_penalty=2.0)
    found = learn_from(rollout, config, kl_coef=0.1)
    # kl is old - ref; 7 is clipped to 5, and the unfinished 0.5 loses 2.
    kl = torch.tensor([[0.5, -1.0, 0.0], [0.5, -1.0, 0.0]])
    rewards = torch.tensor([[-0.05, 0.1, 5.0], [-0.05, 0.1 - 1.5, 0.0]])
    # deltas: -.05 - .09 - .3 = -.44, .1 + .18 + .1 = .38, 4.8; -.05 + .36 - .5 = -.19, -1.4 - .4 = -1.8
    # then A_t = delta_t + .45 * A_(t+1)
    advantages = torch.tensor([[0.703, 2.54, 4.8], [-1.0, -1.8, 0.0]])
    torch.testing.assert_close(found.kl_BT, kl, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.rewards_BT, rewards, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.returns_BT[mask], (advantages + values)[mask], rtol=0, atol=1e-5)
    real = advantages[mask]
    white = (real - real.mean()) / real.std(correction=0)
    torch.testing.assert_close(found.advantages_BT[mask], white, rtol=0, atol=1e-4)
    assert (found.advantages_BT[1, 2], found.kl_BT[1, 2]) == (0, 0)
