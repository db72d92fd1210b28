"""RLOO and GRPO: several responses to each prompt in place of a critic, in the loop of PPO."""

import math

import polars as pl
import pytest
import torch

from rlhf.algorithms.rollouts import Rollout
from rlhf.training import ppo
from rlhf.training.actors import load_actors
from rlhf.training.experience import describe, learn_from
from rlhf.training.objective import Tally, accumulate_gradients
from rlhf.training.rollout import collect
from schemas.config import GRPOConfig, KLConfig, LoraConfig, PPOConfig, RLOOConfig

SMALL = {
    "iterations": 2, "batch_size": 8, "minibatch_size": 8, "warmup_iterations": 0, "max_new_tokens": 8,
    "learning_rate": 3e-3, "target_kl": None,
}  # fmt: skip
PROMPTS = pl.DataFrame(
    {
        "prompt_id": ["a", "b", "c"],
        "prompt": [[{"role": "user", "content": text}] for text in ("hi", "hi there", "there")],
    }
)


def _rollout(scores, lengths, kl):
    """Responses whose policy and reference differ by the same amount at each token."""
    size, width = len(scores), max(lengths)
    mask_BT = torch.arange(width) < torch.tensor(lengths)[:, None]
    old_BT = torch.full((size, width), -1.0).masked_fill(~mask_BT, 0.0)
    return Rollout(
        prompts=[[1]] * size,
        responses=[[2] * length for length in lengths],
        mask_BT=mask_BT,
        finished_B=torch.ones(size, dtype=torch.bool),
        scores_B=torch.tensor(scores),
        old_logprobs_BT=old_BT,
        sampler_logprobs_BT=old_BT - 0.1 * mask_BT,
        ref_logprobs_BT=old_BT - kl * mask_BT,
        values_BT=torch.zeros(size, width),
        entropy_BT=torch.zeros(size, width),
    )


def test_an_rloo_advantage_is_the_reward_less_that_of_the_others_with_the_kl_in_it():
    rollout = _rollout([1.0, 0.0, 2.0, -1.0], [1, 2, 3, 1], kl=0.5)
    config = RLOOConfig(batch_size=4, minibatch_size=4, group_size=2, kl_coef=0.2)
    found = learn_from(rollout, config, kl_coef=0.2)
    # Rewards less 0.2 * 0.5 per token: 0.9, -0.2 | 1.7, -1.1; each less the other one of its pair.
    expected = torch.tensor([[1.1, 0, 0], [-1.1, -1.1, 0], [2.8, 2.8, 2.8], [-2.8, 0, 0]])
    torch.testing.assert_close(found.advantages_BT, expected, rtol=1e-6, atol=1e-6)
    assert found.returns_BT is None
    assert "explained_variance" not in describe(found)


def test_a_grpo_advantage_is_a_score_relative_to_its_group_with_the_kl_outside():
    rollout = _rollout([1.0, 0.0, 2.0, 3.0], [1, 2, 2, 1], kl=0.5)
    config = GRPOConfig(batch_size=4, minibatch_size=4, group_size=2)
    found = learn_from(rollout, config, kl_coef=0.2)
    # Both groups: plus and minus 0.5 over a deviation of sqrt(0.5).
    high = 0.5 / (math.sqrt(0.5) + 1e-4)
    expected = torch.tensor([[high, 0], [-high, -high], [-high, -high], [high, 0]])
    torch.testing.assert_close(found.advantages_BT, expected, rtol=1e-5, atol=1e-6)


def test_importance_weights_of_rloo_are_those_of_whole_responses():
    rollout = _rollout([1.0, 0.0], [1, 3], kl=0.0)
    base = {"batch_size": 2, "minibatch_size": 2, "group_size": 2, "importance_cap": 1.25}
    found = learn_from(rollout, RLOOConfig(**base), kl_coef=0.1)
    expected = torch.tensor([[math.exp(0.1)], [1.25]])  # exp(0.3) = 1.35 is capped
    torch.testing.assert_close(found.weights_BT, expected, rtol=1e-5, atol=0)
    of_tokens = learn_from(rollout, GRPOConfig(**base), kl_coef=0.1).weights_BT
    torch.testing.assert_close(of_tokens[1], torch.full((3,), math.exp(0.1)), rtol=1e-5, atol=0)


def _surrogate(config, folders, fp32):
    """The loss that one pass over a minibatch reports, and what a plain computation of the same gives."""
    actors = load_actors(*folders, lora=None, seed=0, device="cpu", with_critic=False)
    asked = [row for row in PROMPTS["prompt"].to_list() for _ in range(config.group_size)][
        : config.batch_size
    ]
    rollout, _ = collect(actors, asked, config, precision=fp32, seed=0, iteration=0)
    experience = learn_from(rollout, config, kl_coef=config.kl_coef)
    with torch.no_grad():
        for weight in actors.policy.parameters():
            weight.mul_(1.02)  # the policy has moved
    tally, num_tokens = Tally(torch.device("cpu")), int(rollout.mask_BT.sum())
    for rows in ([0, 1, 2], list(range(3, config.batch_size))):
        accumulate_gradients(
            actors,
            experience,
            rows,
            config,
            kl_coef=config.kl_coef,
            precision=fp32,
            num_tokens=num_tokens,
            tally=tally,
        )
    logprobs = []
    for prompt, response in zip(rollout.prompts, rollout.responses, strict=True):
        logits = actors.policy(torch.tensor([prompt + response])).logits[0].detach().double()
        logits[:, actors.pad_id] = -torch.inf
        places = range(len(prompt) - 1, len(prompt + response) - 1)
        logprobs.append(torch.log_softmax(logits, -1)[places, response])
    return tally.metrics(num_tokens), rollout, experience, logprobs, actors


def _clipped(ratio, advantage, clip):
    return min(ratio * advantage, max(min(ratio, 1 + clip), 1 - clip) * advantage)


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo"])
def test_the_losses_of_grpo_are_those_of_the_papers(folders, fp32, loss):
    config = GRPOConfig(**{**SMALL, "group_size": 4, "loss": loss, "kl_coef": 0.0})
    found, rollout, experience, logprobs, _ = _surrogate(config, folders, fp32)
    sums, lengths = [], [len(response) for response in rollout.responses]
    assert len(set(lengths)) > 1
    for row, new in enumerate(logprobs):
        ratios = (new - rollout.old_logprobs_BT[row, : lengths[row]]).exp().tolist()
        advantage = float(experience.advantages_BT[row, 0])
        sums.append(sum(_clipped(ratio, advantage, config.clip_range) for ratio in ratios))
    expected = {
        "grpo": sum(total / length for total, length in zip(sums, lengths, strict=True)) / 8,
        "dr_grpo": sum(sums) / (8 * config.max_new_tokens),
        "dapo": sum(sums) / sum(lengths),
    }[loss]
    assert found["policy_loss"] == pytest.approx(-expected, abs=1e-5)
    assert "value_loss" not in found


def test_the_loss_of_rloo_takes_a_response_for_one_action(folders, fp32):
    config = RLOOConfig(**{**SMALL, "group_size": 4})
    found, rollout, experience, logprobs, _ = _surrogate(config, folders, fp32)
    total, outside = 0.0, 0
    for row, new in enumerate(logprobs):
        ratio = math.exp(float(new.sum() - rollout.old_logprobs_BT[row].sum()))
        total += _clipped(ratio, float(experience.advantages_BT[row, 0]), config.clip_range)
        outside += len(new) * (abs(ratio - 1) > config.clip_range)
    assert found["policy_loss"] == pytest.approx(-total / 8, abs=1e-5)
    assert found["clip_fraction"] == pytest.approx(outside / int(rollout.mask_BT.sum()))


def test_the_kl_of_grpo_is_weighed_like_its_surrogate(folders, fp32):
    """Its gradient, with advantages of 0, is that of the responses' mean KL per token (k2's, which k3+ has)."""
    config = GRPOConfig(
        **{**SMALL, "group_size": 4, "kl_coef": 1.0, "kl": KLConfig(estimator="k2", place="loss")}
    )
    actors = load_actors(*folders, lora=None, seed=0, device="cpu", with_critic=False)
    asked = [row for row in PROMPTS["prompt"].to_list() for _ in range(4)][:8]
    with torch.no_grad():
        for weight in actors.policy.parameters():
            weight.mul_(1.02)
    rollout, _ = collect(actors, asked, config, precision=fp32, seed=0, iteration=0)
    experience = learn_from(rollout, config, kl_coef=1.0)
    experience.advantages_BT.zero_()
    accumulate_gradients(
        actors, experience, list(range(8)), config, kl_coef=1.0, precision=fp32,
        num_tokens=int(rollout.mask_BT.sum()), tally=Tally(torch.device("cpu")),
    )  # fmt: skip
    found = actors.policy.get_input_embeddings().weight.grad.clone()
    actors.policy.zero_grad()
    loss = torch.zeros(())
    for row, (prompt, response) in enumerate(zip(rollout.prompts, rollout.responses, strict=True)):
        logits = actors.policy(torch.tensor([prompt + response])).logits[0]
        keep = [token for token in range(logits.shape[1]) if token != actors.pad_id]
        places = range(len(prompt) - 1, len(prompt + response) - 1)
        new = logits[places, response] - logits[places][:, keep].logsumexp(-1)
        loss = loss + (0.5 * (new - rollout.ref_logprobs_BT[row, : len(response)]).square()).mean() / 8
    loss.backward()
    torch.testing.assert_close(found, actors.policy.get_input_embeddings().weight.grad, rtol=1e-3, atol=1e-6)
    assert found.abs().max() > 1e-4


@pytest.mark.integration
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=8, alpha=64.0)], ids=["full", "lora"])
@pytest.mark.parametrize("section", [RLOOConfig, GRPOConfig], ids=["rloo", "grpo"])
def test_the_score_rises_and_each_prompt_is_asked_as_often_as_the_group_is_large(
    folders, fp32, tmp_path, section, lora
):
    config = section(
        **SMALL | {
            "iterations": 15, "batch_size": 64, "minibatch_size": 32, "group_size": 8, "kl_coef": 0.01,
            "learning_rate": 1e-2, "missing_eos_penalty": 0.0, "lora": lora,
        }
    )  # fmt: skip
    steps = []
    fitted = ppo.fit(
        *folders, PROMPTS, config, seed=0, precision=fp32, on_step=steps.append, out=tmp_path / "out"
    )
    counts = fitted.rollouts.group_by("iteration", "prompt_id").len()
    assert set((counts["len"] % 8).to_list()) == {0}
    scores = [step.metrics["score"] for step in steps]
    assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.3
    # Before the first step of an iteration the policy is the one that sampled.
    assert all(step.metrics["first_ratio_deviation"] == 0 for step in steps)
    assert "critic_grad_norm" not in steps[0].metrics
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.integration
@pytest.mark.parametrize("section", [RLOOConfig, GRPOConfig], ids=["rloo", "grpo"])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bits(folders, fp32, tmp_path, section):
    config = section(**SMALL, group_size=2)

    class Stop(Exception):
        pass

    def stop(step):
        if step.step == 1:
            raise Stop

    def run(out, on_step, checkpoints):
        return ppo.fit(
            *folders, PROMPTS, config, seed=0, precision=fp32, on_step=on_step, out=tmp_path / out,
            checkpoints=tmp_path / checkpoints,
        )  # fmt: skip

    whole = run("whole", lambda step: None, "a")
    seen = []
    with pytest.raises(Stop):
        run("half", lambda step: stop(step), "b")
    again = run("again", seen.append, "b")
    assert [step.step for step in seen] == [1, 2]
    assert again.rollouts.equals(whole.rollouts)
    written = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "again")]
    assert written[0] == written[1]


def test_ppo_still_has_its_critic(folders, fp32, tmp_path):
    steps = []
    config = PPOConfig(**{**SMALL, "iterations": 1})
    ppo.fit(*folders, PROMPTS, config, seed=0, precision=fp32, on_step=steps.append, out=tmp_path)
    assert {"value_loss", "critic_grad_norm", "explained_variance"} <= steps[0].metrics.keys()


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["full", "lora"])
@pytest.mark.parametrize("section", [PPOConfig, GRPOConfig], ids=["ppo", "grpo"])
def test_computing_activations_again_changes_no_gradient(folders, fp32, section, lora):
    gradients, calls = [], []
    for recompute in (False, True):
        config = section(**SMALL, gradient_checkpointing=recompute, lora=lora)
        actors = load_actors(
            *folders, lora=lora, seed=0, device="cpu", with_critic=section is PPOConfig, recompute=recompute
        )
        asked = [row for row in PROMPTS["prompt"].to_list() for _ in range(8)][:8]
        rollout, _ = collect(actors, asked, config, precision=fp32, seed=0, iteration=0)
        layer = next(
            module for name, module in actors.policy.named_modules() if name.endswith("layers.0.self_attn")
        )
        layer.register_forward_hook(lambda *_: calls.append(1))
        calls.clear()
        accumulate_gradients(
            actors, learn_from(rollout, config, kl_coef=0.1), list(range(8)), config, kl_coef=0.1, precision=fp32,
            num_tokens=int(rollout.mask_BT.sum()), tally=Tally(torch.device("cpu")),
        )  # fmt: skip
        assert len(calls) == 1 + recompute
        gradients.append({name: p.grad for name, p in actors.policy.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-5, atol=1e-7)
