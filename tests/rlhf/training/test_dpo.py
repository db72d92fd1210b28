import json
import math

import polars as pl
import pytest
import torch
from datasets import Dataset
from trl import DPOConfig as TRLConfig

from rlhf.data.pairs import encode_pairs
from rlhf.models.loading import load_policy, peft_config, save_model
from rlhf.models.sampling import response_logprobs
from rlhf.training.dpo import PreferenceTrainer, WeightedCollator, fit
from rlhf.training.trl_adapter import arguments, train
from schemas.config.aligners import DPOConfig
from schemas.config.models import LoraConfig


def _fit(folder, preferences, fp32, out, **changes):
    steps = []
    config = DPOConfig(**{"steps": 3, "batch_size": 8, "max_length": 64, "learning_rate": 1e-3, **changes})
    metrics = fit(folder, preferences, config, seed=0, precision=fp32, on_step=steps.append, out=out)
    return steps, metrics


@pytest.mark.integration
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_the_first_loss_is_ln_2_and_falls(tiny_policy, preferences, fp32, tmp_path, lora):
    steps, _ = _fit(tiny_policy, preferences, fp32, tmp_path, lora=lora, steps=12, learning_rate=1e-2)
    assert steps[0].metrics["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert steps[0].metrics["rewards_margins"] == pytest.approx(0, abs=1e-5)
    assert steps[-1].metrics["loss"] < 0.5
    assert steps[-1].metrics["rewards_accuracies"] == 1.0


@pytest.mark.integration
def test_ipo_starts_at_a_quarter_of_beta_to_the_minus_two(tiny_policy, preferences, fp32, tmp_path):
    steps, _ = _fit(tiny_policy, preferences, fp32, tmp_path, loss="ipo", beta=0.5, steps=1)
    assert steps[0].metrics["loss"] == pytest.approx(1.0, abs=1e-5)  # (0 - 1 / (2 * 0.5)) ** 2


@pytest.mark.integration
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_the_reference_is_the_model_that_was_passed(tiny_policy, tokenizer, preferences, fp32, lora):
    """The folder that the config names holds other weights: TRL alone would take those."""
    model, _ = load_policy(tiny_policy)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    pairs = encode_pairs(tokenizer, preferences.head(4), max_length=64)
    rows = [
        {"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}
        for pair in pairs
    ]
    # No pad id is masked (-1 names no token): TRL's softmax is over the whole vocabulary.
    with torch.no_grad():
        expected = [
            float(
                torch.log_softmax(model(torch.tensor([pair.prompt + pair.chosen])).logits[0], -1)[
                    range(len(pair.prompt) - 1, len(pair.prompt + pair.chosen) - 1), pair.chosen
                ].sum()
            )
            for pair in pairs
        ]
    args = TRLConfig(
        **arguments(DPOConfig(steps=1, batch_size=4), seed=0, precision=fp32),
        max_length=None,
        precompute_ref_log_probs=True,
    )
    trainer = PreferenceTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora and peft_config(lora, "CAUSAL_LM"),
    )
    assert trainer.train_dataset["ref_chosen_logps"] == pytest.approx(expected, abs=1e-3)
    steps = []
    train(trainer, fp32, steps.append)
    assert steps[0].metrics["loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.integration
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_a_config_that_names_another_model_does_not_change_the_reference(
    tiny_policy, preferences, fp32, tmp_path, lora
):
    model, tokenizer = load_policy(tiny_policy)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    save_model(model, tokenizer, tmp_path / "sft")
    config = json.loads((tmp_path / "sft" / "config.json").read_text())
    config["_name_or_path"] = str(tiny_policy)
    (tmp_path / "sft" / "config.json").write_text(json.dumps(config))
    steps, _ = _fit(tmp_path / "sft", preferences, fp32, tmp_path / "out", lora=lora)
    assert steps[0].metrics["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert steps[-1].metrics["loss"] < math.log(2) - 0.01


@pytest.mark.integration
def test_a_response_that_the_sampler_cut_off_gets_no_eos(tiny_policy, preferences, fp32, tmp_path):
    whole, cut = (
        _fit(tiny_policy, frame, fp32, tmp_path, steps=1, batch_size=20)[0][0].tokens
        for frame in (preferences, preferences.with_columns(rejected_finished=pl.lit(value=False)))
    )
    assert whole - cut == 20  # one EOS per pair


@pytest.mark.integration
def test_the_saved_policy_prefers_the_chosen_responses_more_than_before(
    tiny_policy, preferences, fp32, tmp_path
):
    _fit(tiny_policy, preferences, fp32, tmp_path, steps=8)

    def margin(folder):
        model, tokenizer = load_policy(folder)
        pairs = encode_pairs(tokenizer, preferences, max_length=64)
        chosen, rejected = (
            sum(
                float(logprobs.sum())
                for logprobs in response_logprobs(
                    model, [pair.prompt for pair in pairs], side, temperature=1.0, pad_id=0, batch_size=8
                )
            )
            for side in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
        )
        return chosen - rejected

    assert margin(tmp_path) > margin(tiny_policy) + 1


@pytest.mark.integration
@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge"])
def test_a_pair_of_weight_two_has_the_gradient_of_two_pairs(tiny_policy, tokenizer, preferences, fp32, loss):
    pairs = encode_pairs(tokenizer, preferences.head(2), max_length=64)
    rows = [
        {
            "prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected,
            "ref_chosen_logps": -3.0, "ref_rejected_logps": -2.0,
        }
        for pair in pairs
    ]  # fmt: skip
    gradients = []
    for batch in (
        [{**rows[0], "weight": 4 / 3}, {**rows[1], "weight": 2 / 3}],
        [{**row, "weight": 1.0} for row in (rows[0], rows[0], rows[1])],
    ):
        model, _ = load_policy(tiny_policy)
        trainer = PreferenceTrainer(
            model=model,
            args=TRLConfig(
                **arguments(DPOConfig(steps=1), seed=0, precision=fp32),
                loss_type=[loss],
                precompute_ref_log_probs=True,
            ),
            train_dataset=Dataset.from_list(
                [{name: row[name] for name in row if "logps" not in name} for row in batch]
            ),
            data_collator=WeightedCollator(pad_token_id=tokenizer.pad_token_id),
            processing_class=tokenizer,
        )
        trainer.compute_loss(model, trainer.data_collator(batch)).backward()
        gradients.append(model.get_input_embeddings().weight.grad)
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


@pytest.mark.integration
def test_weights_reach_the_training_unless_they_are_switched_off(tiny_policy, preferences, fp32, tmp_path):
    contrary = preferences.rename({"chosen": "rejected", "rejected": "chosen"}).select(preferences.columns)
    table = pl.concat([preferences.with_columns(weight=1.0), contrary.with_columns(weight=0.05)])
    margins = {}
    for weighted in (True, False):
        _, metrics = _fit(
            tiny_policy, table, fp32, tmp_path, weighted=weighted, steps=20, batch_size=40, learning_rate=1e-2
        )
        margins[weighted] = metrics["loss"]
    # Half of the pairs are contrary: without weights the policy can only stay where it is.
    assert margins[False] == pytest.approx(math.log(2), abs=0.05)
    assert margins[True] > margins[False] + 0.2
