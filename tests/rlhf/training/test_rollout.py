import torch

from rlhf.models.loading import load_policy
from rlhf.models.precision import Precision
from rlhf.models.sampling import response_logprobs
from rlhf.training.actors import load_actors
from rlhf.training.rollout import collect, minibatches, prompt_rows
from schemas.config import PPOConfig


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


def test_a_rollout_holds_the_log_probabilities_of_policy_and_reference_and_nothing_in_the_padding(folders):
    actors = load_actors(*folders, lora=None, seed=0, device="cpu")
    with torch.no_grad():  # a policy that has moved away from its reference
        actors.policy.get_input_embeddings().weight.mul_(1.2)
    prompts = [[{"role": "user", "content": "hi " * number}] for number in range(1, 9)]
    config = PPOConfig(batch_size=8, minibatch_size=4, epochs=1, max_new_tokens=6, temperature=0.8)
    rollout, _ = collect(
        actors, prompts, config, precision=Precision(threads=1, dtype="fp32"), seed=0, iteration=0
    )
    assert len({len(ids) for ids in rollout.responses}) > 1
    sft, _ = load_policy(folders[0])
    for model, found_BT in (
        (actors.policy, rollout.old_logprobs_BT),
        (sft, rollout.ref_logprobs_BT),
    ):
        expected = response_logprobs(
            model, rollout.prompts, rollout.responses, temperature=0.8, pad_id=0, batch_size=1
        )
        for row, logprobs in enumerate(expected):
            torch.testing.assert_close(found_BT[row, : len(logprobs)], logprobs, rtol=0, atol=1e-5)
    for tensor_BT in (
        rollout.old_logprobs_BT,
        rollout.ref_logprobs_BT,
        rollout.values_BT,
        rollout.entropy_BT,
    ):
        assert not tensor_BT[~rollout.mask_BT].any()
        assert tensor_BT[rollout.mask_BT].all()
