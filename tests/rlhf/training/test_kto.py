import math
from types import SimpleNamespace

import polars as pl
import pytest
import torch

from rlhf.data.unpaired import Judged, encode_judged, from_preferences
from rlhf.models.loading import load_policy
from rlhf.training import kto
from schemas.config import KTOConfig, LoraConfig


def _fit(folder, preferences, fp32, out, feedback=None, **changes):
    steps = []
    config = KTOConfig(**{"steps": 3, "batch_size": 8, "max_length": 64, "learning_rate": 1e-3, **changes})
    metrics = kto.fit(
        folder, preferences, feedback, config, seed=0, precision=fp32, on_step=steps.append, out=out
    )
    return steps, metrics


def _logprobs(folder, judged):
    model, _ = load_policy(folder)
    with torch.no_grad():
        return [
            float(
                torch.log_softmax(model(torch.tensor([one.prompt + one.response])).logits[0], -1)[
                    range(len(one.prompt) - 1, len(one.prompt + one.response) - 1), one.response
                ].sum()
            )
            for one in judged
        ]


@pytest.mark.integration
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_the_first_loss_is_a_half_and_falls(tiny_policy, preferences, fp32, tmp_path, lora):
    steps, metrics = _fit(tiny_policy, preferences, fp32, tmp_path, lora=lora, steps=15, learning_rate=1e-2)
    assert steps[0].metrics["loss"] == pytest.approx(0.5, abs=1e-5)  # sigmoid(0) on both sides
    assert steps[0].metrics["kl"] == pytest.approx(0, abs=1e-5)
    assert steps[-1].metrics["loss"] < 0.4
    assert metrics["good"] == 20
    assert metrics["desirable_weight"] == pytest.approx(1.0)


def _loss_by_the_paper(logprobs, references, stranger_logprobs, stranger_references, labels, config):
    """Eq. 7 with v = lambda * sigmoid(+-(beta * (r - z0))), and eq. 8's lambda."""
    z0 = max(
        0.0, sum(a - b for a, b in zip(stranger_logprobs, stranger_references, strict=True)) / len(labels)
    )
    total = 0.0
    for logprob, reference, good in zip(logprobs, references, labels, strict=True):
        reward = logprob - reference
        sign = 1 if good else -1
        weight = config.desirable_weight if good else config.undesirable_weight
        total += weight * (1 - 1 / (1 + math.exp(-sign * config.beta * (reward - z0))))
    return total / len(labels)


@pytest.mark.integration
@pytest.mark.parametrize("loss", ["kto", "apo_zero_unpaired"])
def test_the_loss_is_that_of_the_paper(tiny_policy, preferences, fp32, tmp_path, loss, monkeypatch):
    """One step of training moves the policy; the loss of the next, same batch is the formula's."""
    config = {
        "loss": loss, "beta": 0.4, "desirable_weight": 1.3, "undesirable_weight": 0.7, "weighted": False,
        "batch_size": 40, "learning_rate": 5e-3, "warmup_fraction": 0.0, "weight_decay": 0.0,
    }  # fmt: skip
    batches = []
    collate = kto.JudgedCollator.torch_call
    monkeypatch.setattr(
        kto.JudgedCollator, "torch_call", lambda self, rows: batches.append(rows) or collate(self, rows)
    )
    # The learning rate of the last of two steps is 0 at its end: what is saved after one step is what the second sees.
    _fit(tiny_policy, preferences, fp32, tmp_path / "one", steps=1, lora=None, **config)
    batches.clear()
    steps, _ = _fit(tiny_policy, preferences, fp32, tmp_path / "two", steps=2, lora=None, **config)
    second = batches[-1]

    def judged(key):
        return [SimpleNamespace(prompt=row["prompt_ids"], response=row[key]) for row in second]

    moved, begun = tmp_path / "one", tiny_policy
    own = judged("completion_ids")
    other = judged("KL_completion_ids") if loss == "kto" else None
    expected = _loss_by_the_paper(
        _logprobs(moved, own), _logprobs(begun, own),
        _logprobs(moved, other) if other else [0.0] * len(own), _logprobs(begun, other) if other else [0.0] * len(own),
        [row["label"] for row in second], KTOConfig(**config),
    )  # fmt: skip
    assert steps[1].metrics["loss"] == pytest.approx(expected, abs=1e-4)
    assert abs(expected - 0.5) > 1e-2


@pytest.mark.integration
def test_the_saved_policy_likes_good_responses_more_and_bad_ones_less(
    tiny_policy, tokenizer, preferences, fp32, tmp_path
):
    _fit(tiny_policy, preferences, fp32, tmp_path, steps=10)
    judged = encode_judged(tokenizer, from_preferences(preferences), max_length=64)
    change = torch.tensor(_logprobs(tmp_path, judged)) - torch.tensor(_logprobs(tiny_policy, judged))
    good = torch.tensor([one.good for one in judged])
    assert change[good].mean() > change[~good].mean() + 1


@pytest.mark.integration
def test_labels_of_feedback_alone_are_learnt(tiny_policy, preferences, fp32, tmp_path):
    feedback = pl.concat(
        [
            preferences.select(
                "prompt_id", "prompt", pl.col(side).alias("response"), pl.lit("r").alias("rater"),
                pl.lit(label).alias("label"), pl.lit(None, dtype=pl.Float64).alias("score"),
            )
            for side, label in (("rejected", True), ("chosen", False))
        ]
    )  # fmt: skip
    contrary, _ = _fit(
        tiny_policy, preferences, fp32, tmp_path, feedback, labels="feedback", steps=15, learning_rate=1e-2
    )
    # A batch has both kinds: the responses to a prompt stay together.
    assert contrary[-1].metrics["logps_rejected"] < contrary[0].metrics["logps_rejected"] - 1
    assert contrary[-1].metrics["logps_chosen"] > contrary[0].metrics["logps_chosen"] + 1
    _, both = _fit(tiny_policy, preferences, fp32, tmp_path, feedback, labels="both")
    assert both["good"] == 40


def test_the_default_weight_makes_both_kinds_count_alike():
    judged = [
        Judged(prompt_id="a", prompt=[1], response=[2], good=good, weight=weight)
        for good, weight in ((True, 1.0), (False, 1.0), (False, 0.5), (False, 0.5))
    ]
    weights, desirable = kto.balance(judged, KTOConfig(undesirable_weight=1.5))
    assert sum(weights) == pytest.approx(4)
    assert desirable * weights[0] == pytest.approx(1.5 * sum(weights[1:]))
    _, unweighted = kto.balance(judged, KTOConfig(weighted=False))
    assert unweighted == pytest.approx(3.0)
    assert kto.balance(judged, KTOConfig(desirable_weight=1.1))[1] == 1.1


@pytest.mark.integration
def test_a_response_of_weight_two_has_twice_the_gradient(tiny_policy, tokenizer, preferences, fp32):
    """Of the loss without a KL, where responses have nothing to do with each other."""
    judged = encode_judged(tokenizer, from_preferences(preferences.head(1)), max_length=64)
    rows = [
        {
            "prompt_ids": one.prompt, "completion_ids": one.response, "label": one.good,
            "ref_logps": reference, "weight": 1.0,
        }
        for one, reference in zip(judged, (-30.0, -20.0), strict=True)
    ]  # fmt: skip
    gradients = []
    for batch in (
        [{**rows[0], "weight": 4 / 3}, {**rows[1], "weight": 2 / 3}],
        [rows[0], rows[0], rows[1]],
    ):
        model, _ = load_policy(tiny_policy)
        trainer = kto.UnpairedTrainer(
            model=model,
            args=kto.TRLConfig(
                **kto.arguments(KTOConfig(steps=1), seed=0, precision=fp32),
                loss_type="apo_zero_unpaired",
                precompute_ref_log_probs=True,
            ),
            train_dataset=kto.Dataset.from_list(
                [{key: row[key] for key in row if key != "ref_logps"} for row in batch]
            ),
            data_collator=kto.JudgedCollator(pad_token_id=tokenizer.pad_token_id),
            processing_class=tokenizer,
        )
        trainer.compute_loss(model, trainer.data_collator(batch)).backward()
        gradients.append(model.get_input_embeddings().weight.grad)
    assert gradients[0].abs().max() > 1e-5
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)


def test_each_prompt_meets_the_response_to_another_one_of_its_batch():
    prompts = [0, 0, 1, 1, 2, 2, 3, 3]  # good and bad responses to a prompt lie together
    rows = [
        {"prompt_ids": [prompt], "completion_ids": [10 * prompt + row]} for row, prompt in enumerate(prompts)
    ]
    trainer, args = SimpleNamespace(calculate_KL=True), SimpleNamespace(per_device_train_batch_size=4)
    found = kto.UnpairedTrainer._prepare_dataset(trainer, kto.Dataset.from_list(rows), None, args)
    strangers = [ids[0] // 10 for ids in found["KL_completion_ids"]]
    assert strangers == [1, 1, 0, 0, 3, 3, 2, 2]
