from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlhf.models.batches import collate
from rlhf.models.sampling import response_logprobs
from rlhf.training.actors import load_actors
from schemas.config import LoraConfig

LORA = LoraConfig(rank=2, alpha=4.0, dropout=0.3)


@pytest.mark.parametrize("lora", [None, LORA])
def test_the_critic_starts_as_the_normalised_reward_model(
    folders: tuple[Path, Path], lora: LoraConfig | None
):
    actors = load_actors(*folders, lora=lora, seed=0, device="cpu")
    prompts, responses = [[2, 9, 10], [2, 11]], [[20, 21, 1], [22, 23, 24, 25, 26]]
    # One more token, so that the state after the whole response is among the states of the batch.
    batch = collate(prompts, [[*ids, 0] for ids in responses], pad_id=0, device=torch.device("cpu"))
    values = actors.critic(batch)
    scores = actors.reward_model.normalised_scores([p + r for p, r in zip(prompts, responses, strict=True)])
    torch.testing.assert_close(torch.stack([values[0, 3], values[1, 5]]), scores, rtol=0, atol=1e-5)


def test_the_reference_stays_put_while_adapters_learn(folders: tuple[Path, Path]):
    actors = load_actors(*folders, lora=LORA, seed=0, device="cpu")

    def score() -> Tensor:
        with actors.reference() as reference:
            return response_logprobs(
                reference, [[2, 9]], [[20, 21]], temperature=1.0, pad_id=0, batch_size=1
            )[0]

    before = score()
    with torch.no_grad():
        for parameter in actors.policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    assert torch.equal(score(), before)
    assert all(
        parameter.requires_grad for name, parameter in actors.policy.named_parameters() if "lora_" in name
    )
