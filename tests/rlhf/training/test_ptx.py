"""PPO-ptx: the mixed-in loss is that of supervised fine-tuning, and it does what it is there for."""

import polars as pl
import pytest
import torch

from rlhf.data.chat import encode_prompt, encode_response
from rlhf.models.loading import load_policy
from rlhf.models.precision import Precision
from rlhf.training import ppo
from rlhf.training.actors import load_actors
from rlhf.training.ptx import Mix
from schemas.config import PPOConfig, PTXConfig
from schemas.config.loading import load_config
from schemas.errors import ConfigError, DataRejected

FP32 = Precision(threads=1, dtype="fp32")
MESSAGES = [[{"role": "user", "content": "hi " * number}] for number in range(1, 5)]
SAID = pl.DataFrame({"prompt": MESSAGES, "response": ["there", "hi there", "hi", "there hi there"]})


def _reference_loss(model, rows):
    """The mean loss per learnt token, one row at a time, through transformers' own labels."""
    total, count = 0.0, 0
    for prompt, response in rows:
        labels = torch.tensor([[-100] * len(prompt) + response])
        loss = model(input_ids=torch.tensor([prompt + response]), labels=labels).loss
        total, count = total + loss * len(response), count + len(response)
    return total / count


def test_loss_and_gradient_are_transformers_own_times_the_coefficient(folders):
    actors = load_actors(*folders, lora=None, seed=0, device="cpu")
    mix = Mix.encode(actors.tokenizer, SAID, PTXConfig(coef=0.25, batch_size=4), seed=0)
    found = mix.accumulate(actors, FP32, step=0)
    gradient = actors.policy.get_input_embeddings().weight.grad.clone()
    model, tokenizer = load_policy(folders[0])
    rows = [
        (encode_prompt(tokenizer, row["prompt"]), encode_response(tokenizer, row["response"]))
        for row in SAID.iter_rows(named=True)
    ]
    loss = _reference_loss(model, rows)
    (0.25 * loss).backward()
    assert found["ptx_loss"] == pytest.approx(loss.item(), abs=1e-5)
    torch.testing.assert_close(gradient, model.get_input_embeddings().weight.grad, rtol=1e-4, atol=1e-6)
    assert found["ptx_tokens"] == sum(len(prompt) + len(response) for prompt, response in rows)


def test_documents_are_learnt_from_their_second_token_on(folders):
    _, tokenizer = load_policy(folders[0])
    mix = Mix.encode(tokenizer, pl.DataFrame({"text": ["hi there hi"]}), PTXConfig(source="corpus"), seed=0)
    ids = encode_response(tokenizer, "hi there hi")
    assert mix.rows == [(ids[:1], ids[1:])]


def test_rows_are_cut_and_rows_without_room_are_left_out(folders):
    _, tokenizer = load_policy(folders[0])
    long = [[{"role": "user", "content": "there " * number}] for number in (12, 40)]
    table = pl.DataFrame({"prompt": long, "response": ["there hi", "hi"]})
    prompts = [encode_prompt(tokenizer, messages) for messages in long]
    mix = Mix.encode(tokenizer, table, PTXConfig(max_length=len(prompts[0]) + 1), seed=0)
    assert mix.rows == [(prompts[0], encode_response(tokenizer, "there hi")[:1])]
    with pytest.raises(DataRejected, match=rf"ptx\.max_length={len(prompts[1])}"):
        Mix.encode(tokenizer, table[1:], PTXConfig(max_length=len(prompts[1])), seed=0)


def test_each_step_draws_its_own_examples_and_the_same_step_the_same(folders):
    actors = load_actors(*folders, lora=None, seed=0, device="cpu")
    mix = Mix.encode(actors.tokenizer, SAID, PTXConfig(batch_size=1), seed=0)
    losses = [mix.accumulate(actors, FP32, step=step)["ptx_loss"] for step in range(8)]
    assert len(set(losses)) > 1
    assert mix.accumulate(actors, FP32, step=3)["ptx_loss"] == losses[3]


@pytest.mark.integration
def test_ppo_with_the_mix_goes_on_to_know_the_demonstrations(folders, tmp_path):
    prompts = pl.DataFrame({"prompt_id": list("abcd"), "prompt": MESSAGES})

    def surprise(ptx):
        config = PPOConfig(
            iterations=6, batch_size=4, minibatch_size=4, epochs=2, warmup_iterations=0, max_new_tokens=6,
            learning_rate=3e-3, target_kl=None, ptx=ptx,
        )  # fmt: skip
        steps = []
        out = tmp_path / str(ptx is not None)
        ppo.fit(*folders, prompts, config, seed=0, precision=FP32, on_step=steps.append, out=out, mixed=SAID)
        model, tokenizer = load_policy(out)
        rows = Mix.encode(tokenizer, SAID, PTXConfig(), seed=0).rows
        return float(_reference_loss(model, rows).detach()), steps

    without, plain = surprise(None)
    mixed, steps = surprise(PTXConfig(coef=1.0, batch_size=4))
    assert mixed < without - 0.5
    assert "ptx_loss" not in plain[0].metrics
    assert steps[-1].metrics["ptx_loss"] < steps[0].metrics["ptx_loss"]
    read = steps[0].metrics["ptx_tokens"] * steps[0].metrics["optimizer_steps"]
    # The first rollout is the same, so what is learnt from besides the rollout is the mix.
    assert steps[0].gradient_tokens - plain[0].gradient_tokens == read


def test_the_corpus_is_refused_where_there_is_none():
    with pytest.raises(ConfigError, match=r"ppo\.ptx\.source=corpus"):
        load_config("hh", ["ppo.ptx.source=corpus", "data.corpus=[]", "base.source=x", "base.revision=y"])
