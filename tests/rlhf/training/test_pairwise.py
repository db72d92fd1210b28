"""The three aligners without a reference, by the one trainer that they share."""

import math
from types import SimpleNamespace

import polars as pl
import pytest
import torch

from rlhf.algorithms.pairwise import cpo
from rlhf.data.pairs import encode_pairs
from rlhf.models.loading import load_policy
from rlhf.training import cpo as cpo_training
from rlhf.training import orpo as orpo_training
from rlhf.training import pairwise
from rlhf.training import simpo as simpo_training
from rlhf.training.trl_adapter import pair_rows
from schemas.config import CPOConfig, LoraConfig, ORPOConfig, SimPOConfig

ALIGNERS = {
    "orpo": (orpo_training, ORPOConfig(odds_weight=0.5, steps=1)),
    "cpo": (cpo_training, CPOConfig(beta=0.1, sft_weight=0.3, steps=1)),
    "simpo": (simpo_training, SimPOConfig(beta=2.0, margin=0.5, steps=1)),
}


def _fit(name, folder, preferences, fp32, out, **changes):
    steps = []
    module, config = ALIGNERS[name]
    common = {"steps": 3, "batch_size": 8, "max_length": 64, "learning_rate": 1e-3}
    config = config.model_copy(update={**common, **changes})
    metrics = module.fit(folder, preferences, config, seed=0, precision=fp32, on_step=steps.append, out=out)
    return steps, metrics


def _expected(name, folder, tokenizer, pairs):
    """The mean loss over pairs, from one plain forward pass per response and the papers' formulas."""
    model, _ = load_policy(folder)
    losses = []
    for pair in pairs:
        with torch.no_grad():
            means, sums = [], []
            for response in (pair.chosen, pair.rejected):
                logits = model(torch.tensor([pair.prompt + response])).logits[0].double()
                logits[:, tokenizer.pad_token_id] = -torch.inf  # the sampler never draws it
                places = range(len(pair.prompt) - 1, len(pair.prompt + response) - 1)
                sums.append(float(torch.log_softmax(logits, -1)[places, response].sum()))
                means.append(sums[-1] / len(response))
        if name == "orpo":
            p, q = math.exp(means[0]), math.exp(means[1])
            loss = -means[0] + 0.5 * math.log(1 + q / (1 - q) / (p / (1 - p)))
        elif name == "cpo":
            loss = math.log(1 + math.exp(-0.1 * (sums[0] - sums[1]))) - 0.3 * means[0]
        else:
            loss = math.log(1 + math.exp(0.5 - 2.0 * (means[0] - means[1])))
        losses.append(loss)
    return sum(losses) / len(losses)


@pytest.mark.integration
@pytest.mark.parametrize("name", ALIGNERS)
@pytest.mark.parametrize("micro_batch_size", [None, 5])
def test_the_first_loss_is_that_of_the_paper(
    tiny_policy, tokenizer, preferences, fp32, tmp_path, name, micro_batch_size
):
    config = ORPOConfig(steps=1, batch_size=20, max_length=64)
    rows = pair_rows(tokenizer, preferences, config, weighted=True, seed=0)
    pairs = [
        SimpleNamespace(prompt=row["prompt_ids"], chosen=row["chosen_ids"], rejected=row["rejected_ids"])
        for row in rows
    ]
    changes = {"steps": 1, "batch_size": 20, "micro_batch_size": micro_batch_size}
    steps, _ = _fit(name, tiny_policy, preferences, fp32, tmp_path, **changes)
    expected = _expected(name, tiny_policy, tokenizer, pairs)
    assert steps[0].metrics["loss"] == pytest.approx(expected, abs=1e-4)
    assert steps[0].tokens == sum(
        2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs
    )


@pytest.mark.integration
@pytest.mark.parametrize("name", ALIGNERS)
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_the_loss_falls_and_the_saved_policy_prefers_what_was_chosen(
    tiny_policy, tokenizer, preferences, fp32, tmp_path, name, lora
):
    pairs = encode_pairs(tokenizer, preferences, max_length=64)
    before = _expected(name, tiny_policy, tokenizer, pairs)
    steps, _ = _fit(name, tiny_policy, preferences, fp32, tmp_path, steps=12, learning_rate=1e-2, lora=lora)
    assert steps[-1].metrics["margins"] > steps[0].metrics["margins"] + 1
    assert _expected(name, tmp_path, tokenizer, pairs) < before - 0.1


@pytest.mark.integration
def test_neither_micro_batches_nor_computing_activations_again_change_anything(
    tiny_policy, preferences, fp32, tmp_path
):
    losses = [
        [step.metrics["loss"] for step in _fit("cpo", tiny_policy, preferences, fp32, tmp_path, **changes)[0]]
        for changes in ({}, {"micro_batch_size": 2}, {"gradient_checkpointing": True})
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert losses[2] == pytest.approx(losses[0], abs=1e-5)


@pytest.mark.integration
def test_a_pair_of_weight_two_has_the_gradient_of_two_pairs(tiny_policy, tokenizer, preferences, fp32):
    pairs = encode_pairs(tokenizer, preferences.head(2), max_length=64)
    rows = [
        {"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
        for pair in pairs
    ]
    gradients = []
    for batch in (
        [{**rows[0], "weight": 4 / 3}, {**rows[1], "weight": 2 / 3}],
        [{**row, "weight": 1.0} for row in (rows[0], rows[0], rows[1])],
    ):
        model, _ = load_policy(tiny_policy)
        trainer = pairwise.PairTrainer(
            loss=lambda policy: cpo(policy, beta=0.1, loss="sigmoid", sft_weight=0.3),
            pad_id=tokenizer.pad_token_id,
            model=model,
            args=pairwise.TrainingArguments(
                **pairwise.arguments(CPOConfig(steps=1), seed=0, precision=fp32), remove_unused_columns=False
            ),
            train_dataset=batch,
        )
        trainer.compute_loss(model, trainer.data_collator(batch)).backward()
        gradients.append(model.get_input_embeddings().weight.grad)
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


@pytest.mark.integration
def test_weights_reach_the_training_unless_they_are_switched_off(tiny_policy, preferences, fp32, tmp_path):
    contrary = preferences.rename({"chosen": "rejected", "rejected": "chosen"}).select(preferences.columns)
    table = pl.concat([preferences.with_columns(weight=1.0), contrary.with_columns(weight=0.05)])
    margins = {
        weighted: _fit(
            "cpo", tiny_policy, table, fp32, tmp_path, weighted=weighted, steps=20, batch_size=40,
            learning_rate=1e-2, sft_weight=0.0,
        )[1]["loss"]
        for weighted in (True, False)
    }  # fmt: skip
    # Half of the pairs are contrary: without weights the loss can only be ln 2 at best.
    assert margins[False] > math.log(2) - 0.01
    assert margins[True] < 0.3
