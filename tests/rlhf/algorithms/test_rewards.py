import torch

from rlhf.algorithms.masks import length_mask
from rlhf.algorithms.rewards import shape_scores, token_rewards

LENGTHS = torch.tensor([3, 1, 4])
MASK = length_mask(LENGTHS, 5)
GENERATOR = torch.Generator().manual_seed(0)
KL = torch.randn(3, 5, generator=GENERATOR)


def test_the_score_lands_on_the_last_real_token():
    rewards = token_rewards(torch.tensor([2.0, 3.0, 4.0]), torch.zeros(3, 5), MASK, kl_coef=0.5)
    assert rewards.tolist() == [[0, 0, 2, 0, 0], [3, 0, 0, 0, 0], [0, 0, 0, 4, 0]]


def test_rewards_sum_to_score_minus_the_kl_penalty():
    scores = torch.tensor([2.0, -3.0, 0.5])
    total = token_rewards(scores, KL, MASK, kl_coef=0.1).sum(1)
    torch.testing.assert_close(total, scores - 0.1 * (KL * MASK).sum(1), rtol=0, atol=1e-6)


def test_what_padding_holds_changes_no_reward():
    scores = torch.ones(3)
    polluted = torch.where(MASK, KL, torch.nan)
    assert torch.equal(
        token_rewards(scores, polluted, MASK, kl_coef=0.1), token_rewards(scores, KL, MASK, kl_coef=0.1)
    )


def test_a_huge_score_is_clipped_and_kl_terms_are_not():
    scores = shape_scores(
        torch.tensor([1000.0, -1000.0, 1.0]),
        torch.ones(3).bool(),
        LENGTHS,
        score_clip=5.0,
        missing_eos_penalty=1.0,
    )
    assert scores.tolist() == [5.0, -5.0, 1.0]
    kl = torch.full((3, 5), 1000.0)
    assert token_rewards(scores, kl, MASK, kl_coef=1.0)[0].tolist() == [-1000.0, -1000.0, -995.0, 0.0, 0.0]


def test_only_unfinished_responses_are_penalised_after_clipping():
    finished = torch.tensor([True, False])
    scores = shape_scores(
        torch.tensor([9.0, 9.0]), finished, torch.tensor([4, 4]), score_clip=5.0, missing_eos_penalty=2.0
    )
    assert scores.tolist() == [5.0, 3.0]


def test_the_length_penalty_is_due_for_each_token_after_clipping():
    scores = shape_scores(
        torch.tensor([9.0, 1.0]), torch.ones(2).bool(), torch.tensor([10, 4]), score_clip=5.0,
        missing_eos_penalty=1.0, length_penalty=0.25,
    )  # fmt: skip
    assert scores.tolist() == [2.5, 0.0]  # 5 - 10 / 4, 1 - 4 / 4
