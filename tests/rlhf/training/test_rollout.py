import torch

from rlhf.training.rollout import minibatches, prompt_rows


def test_every_pass_over_the_prompts_meets_each_of_them_once():
    drawn = [
        row for iteration in range(5) for row in prompt_rows(10, iteration=iteration, batch_size=4, seed=0)
    ]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    assert len(prompt_rows(3, iteration=7, batch_size=8, seed=0)) == 8


def test_minibatches_are_a_partition_sorted_within():
    lengths = [5, 1, 4, 2, 8, 7, 3, 6]
    plan = minibatches(
        lengths, minibatch_size=4, micro_batch_size=2, generator=torch.Generator().manual_seed(0)
    )
    assert [len(minibatch) for minibatch in plan] == [2, 2]
    assert sorted(row for minibatch in plan for rows in minibatch for row in rows) == list(range(8))
    for minibatch in plan:
        ordered = [lengths[row] for rows in minibatch for row in rows]
        assert ordered == sorted(ordered)
