import json
import math
from typing import get_args

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
from schemas.config import DPOConfig
from schemas.config.aligners.dpo import DPOLoss
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


BETA, SMOOTHING = 0.3, 0.1


def _sigmoid(value):
    return 1 / (1 + math.exp(-value))


def _formula(loss, w, r, nw, nr):
    """The papers' losses of one pair: log-ratios to the reference of chosen (w) and rejected (r), and their tokens."""
    d, per_token = BETA * (w - r), w / nw - r / nr
    ours, theirs = _sigmoid(d), _sigmoid(-d)
    modulation = _sigmoid(d / 0.05)
    return {
        "sigmoid": lambda: math.log(1 + math.exp(-d)),
        "hinge": lambda: max(0.0, 1 - d),
        "ipo": lambda: (per_token - 0.5 / BETA) ** 2,
        "exo_pair": lambda: ours * math.log(ours / (1 - SMOOTHING)) + theirs * math.log(theirs / SMOOTHING),
        "nca_pair": lambda: -math.log(_sigmoid(BETA * w)) - (math.log(_sigmoid(-BETA * w)) + math.log(_sigmoid(-BETA * r))) / 2,
        "robust": lambda: (-(1 - SMOOTHING) * math.log(ours) + SMOOTHING * math.log(theirs)) / (1 - 2 * SMOOTHING),
        "bco_pair": lambda: -math.log(_sigmoid(BETA * w)) - math.log(_sigmoid(-BETA * r)),
        "sppo_hard": lambda: (w - 0.5 / BETA) ** 2 + (r + 0.5 / BETA) ** 2,
        "apo_zero": lambda: 1 - _sigmoid(BETA * w) + _sigmoid(BETA * r),
        "apo_down": lambda: _sigmoid(BETA * w) + 1 - ours,
        "discopop": lambda: -math.log(ours) * (1 - modulation) + math.exp(-d) * modulation,
        "sigmoid_norm": lambda: math.log(1 + math.exp(-BETA * per_token)),
    }[loss]()  # fmt: skip


def _logprobs(model, pairs):
    """Log-probabilities of all chosen and of all rejected responses, from plain forward passes."""

    @torch.no_grad()
    def of(pair, response):
        logprobs = torch.log_softmax(model(torch.tensor([pair.prompt + response])).logits[0], -1)
        return float(logprobs[range(len(pair.prompt) - 1, len(pair.prompt + response) - 1), response].sum())

    return [of(pair, pair.chosen) for pair in pairs], [of(pair, pair.rejected) for pair in pairs]


def _expected(loss, chosen, rejected, references, tokens):
    """Mean over the pairs; the last three look at the batch as a whole."""
    ratios = [(c - rc, r - rr) for c, r, (rc, rr) in zip(chosen, rejected, references, strict=True)]
    if loss == "sft":
        return -sum(chosen) / sum(n for n, _ in tokens)
    if loss in ("aot", "aot_unpaired"):
        left = sorted(w for w, _ in ratios)
        right = sorted(r for _, r in ratios)
        if loss == "aot":
            left = sorted(c - r for c, r in zip(chosen, rejected, strict=True))
            right = sorted(rc - rr for rc, rr in references)
        gaps = [BETA * (a - b) for a, b in zip(left, right, strict=True)]
        each = [-(1 - SMOOTHING) * math.log(_sigmoid(g)) - SMOOTHING * math.log(_sigmoid(-g)) for g in gaps]
    else:
        each = [_formula(loss, w, r, *n) for (w, r), n in zip(ratios, tokens, strict=True)]
    return sum(each) / len(each)


@pytest.fixture
def trainer_of(tokenizer, fp32):
    """Make a trainer whose batches come with the references' log-probabilities."""

    def make(model, losses, rows):
        return PreferenceTrainer(
            model=model,
            args=TRLConfig(
                **arguments(DPOConfig(steps=1), seed=0, precision=fp32),
                loss_type=losses,
                beta=BETA,
                label_smoothing=SMOOTHING,
                precompute_ref_log_probs=True,
            ),
            train_dataset=Dataset.from_list(
                [{name: row[name] for name in row if "logps" not in name} for row in rows]
            ),
            data_collator=WeightedCollator(pad_token_id=tokenizer.pad_token_id),
            processing_class=tokenizer,
        )

    return make


@pytest.mark.integration
def test_every_loss_of_trl_is_that_of_its_paper(tiny_policy, tokenizer, preferences, trainer_of):
    varied = preferences.head(3).with_columns(
        chosen=pl.Series(["Thank you.", "We open at nine.", "Nine."]),
        rejected=pl.Series(["No.", "Twelve euros", "I am"]),
    )
    pairs = encode_pairs(tokenizer, varied, max_length=64)
    model, _ = load_policy(tiny_policy)
    chosen, rejected = _logprobs(model, pairs)
    # Log-ratios of a few nats, of both signs: every branch of every loss is looked at.
    references = [
        (c + shift, r - 1.5 * shift) for c, r, shift in zip(chosen, rejected, (1.0, -2.0, 0.5), strict=True)
    ]
    rows = [
        {
            "prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected, "weight": 1.0,
            "ref_chosen_logps": rc, "ref_rejected_logps": rr,
        }
        for pair, (rc, rr) in zip(pairs, references, strict=True)
    ]  # fmt: skip
    tokens = [(len(pair.chosen), len(pair.rejected)) for pair in pairs]
    trainer = trainer_of(model, ["sigmoid"], rows)
    found, expected = {}, {}
    for loss in get_args(DPOLoss):
        trainer.loss_types = [loss]
        found[loss] = float(trainer.compute_loss(model, trainer.data_collator(rows)).detach())
        expected[loss] = _expected(loss, chosen, rejected, references, tokens)
    assert len(found) == 15
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.integration
def test_several_losses_are_added_with_their_weights(tiny_policy, tokenizer, preferences, fp32, tmp_path):
    one, sft, both = (
        _fit(
            tiny_policy, preferences, fp32, tmp_path, steps=1, batch_size=20, loss=loss, loss_weights=weights
        )[0][0].metrics["loss"]
        for loss, weights in ((("sigmoid",), None), (("sft",), None), (("sigmoid", "sft"), (2.0, 0.25)))
    )
    assert sft > 1
    assert both == pytest.approx(2 * one + 0.25 * sft, abs=1e-4)


@pytest.mark.integration
def test_a_pair_of_weight_two_has_the_gradient_of_two_pairs(tiny_policy, tokenizer, preferences, trainer_of):
    """Of every loss that the schema lets count pairs differently."""
    pairs = encode_pairs(tokenizer, preferences.head(2), max_length=64)
    model, _ = load_policy(tiny_policy)
    rows = [
        {
            "prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected,
            "ref_chosen_logps": chosen - 1.0, "ref_rejected_logps": rejected + 0.5,
        }
        for pair, chosen, rejected in zip(pairs, *_logprobs(model, pairs), strict=True)
    ]  # fmt: skip
    weighted = [{**rows[0], "weight": 4 / 3}, {**rows[1], "weight": 2 / 3}]
    repeated = [{**row, "weight": 1.0} for row in (rows[0], rows[0], rows[1])]
    trainer = trainer_of(model, ["sigmoid"], weighted)
    for loss in set(get_args(DPOLoss)) - {"aot", "aot_unpaired"}:
        trainer.loss_types = [loss]
        gradients = []
        for batch in (weighted, repeated):
            model.zero_grad()
            trainer.compute_loss(model, trainer.data_collator(batch)).backward()
            gradients.append(model.get_input_embeddings().weight.grad.clone())
        assert gradients[0].abs().max() > 1e-4, loss
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5, msg=loss)


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
