import math

import polars as pl
import pytest
import torch
from datasets import Dataset
from trl import RewardConfig as TRLConfig
from trl.trainer.reward_trainer import DataCollatorForPreference, RewardTrainer

from rlhf.data.chat import encode_prompt, encode_response
from rlhf.models.reward import RewardModel
from rlhf.training.pairs import encode_pairs
from rlhf.training.reward import DistinctCollator, PairTrainer, fit
from rlhf.training.trl_adapter import arguments
from schemas.config.models import LoraConfig
from schemas.config.supervised import RewardConfig
from schemas.errors import DataRejected

ROWS = [
    {"chosen_ids": [9, 8, 7, 1], "rejected_ids": [9, 8, 6, 5, 1], "margin": 0.0},
    {"chosen_ids": [9, 8, 7, 1], "rejected_ids": [9, 8, 4, 1], "margin": 0.0},
    {"chosen_ids": [9, 8, 4, 1], "rejected_ids": [9, 8, 6, 5, 1], "margin": 0.5},
]


def test_a_shared_response_is_in_the_batch_once():
    batch = DistinctCollator(pad_id=0)(ROWS)
    assert batch["input_ids"].tolist() == [[9, 8, 7, 1, 0], [9, 8, 4, 1, 0], [9, 8, 6, 5, 1]]
    assert batch["attention_mask"].sum(1).tolist() == [4, 4, 5]
    assert batch["rows"].tolist() == [0, 0, 1, 2, 1, 2]


@pytest.mark.integration
def test_sharing_changes_neither_loss_nor_gradient(tiny_policy, tokenizer, fp32):
    config = RewardConfig(steps=1, batch_size=3)
    results = []
    for kind, collator in (
        (PairTrainer, DistinctCollator(pad_id=0)),
        (RewardTrainer, DataCollatorForPreference(pad_token_id=0)),
    ):
        model = RewardModel.from_policy(tiny_policy, seed=1).model
        args = TRLConfig(**arguments(config, seed=0, precision=fp32), center_rewards_coefficient=0.1)
        trainer = kind(
            model=model, args=args, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer
        )
        loss = trainer.compute_loss(model, collator(ROWS))
        loss.backward()
        results.append((loss.item(), model.score.weight.grad, model.model.embed_tokens.weight.grad))
    (loss, head, embeddings), (expected, expected_head, expected_embeddings) = results
    assert loss == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(head, expected_head, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(embeddings, expected_embeddings, rtol=1e-5, atol=1e-6)


def test_the_pairs_hold_the_ids_that_ppo_gives_the_reward_model(tokenizer, preferences):
    row = preferences.row(0, named=True)
    pair = encode_pairs(tokenizer, preferences, max_length=64)[0]
    assert pair.prompt == encode_prompt(tokenizer, row["prompt"])
    assert pair.chosen == encode_response(tokenizer, row["chosen"])
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        unfinished = preferences.with_columns(pl.lit(value=False).alias(f"{side}_finished"))
        cut = encode_pairs(tokenizer, unfinished, max_length=64)[0]
        assert getattr(cut, side) == encode_response(tokenizer, row[side])[:-1]
        assert getattr(cut, other) == encode_response(tokenizer, row[other])


def test_pairs_that_a_cut_makes_equal_are_left_out_and_counted(tokenizer, preferences, caplog):
    longer = preferences.with_columns(rejected=pl.lit("Thank you for nothing."))
    prompt = len(encode_prompt(tokenizer, preferences["prompt"][0]))
    mixed = pl.concat([preferences.head(1), longer.head(1)])
    assert len(encode_pairs(tokenizer, mixed, max_length=prompt + 2)) == 1
    assert "1 became equal" in caplog.text
    with pytest.raises(DataRejected, match="max_length"):
        encode_pairs(tokenizer, preferences, max_length=4)


@pytest.mark.integration
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=16)])
def test_it_learns_the_preference_and_normalises_the_scores(
    tiny_policy, preferences, candidates, fp32, tmp_path, lora
):
    steps = []
    config = RewardConfig(
        steps=40, batch_size=4, learning_rate=5e-3, max_length=64, held_out_fraction=0.2, lora=lora
    )
    found = fit(
        tiny_policy,
        preferences,
        candidates,
        config,
        seed=0,
        precision=fp32,
        on_step=steps.append,
        out=tmp_path,
    )
    assert found.pairs == 4
    assert found.correct == 4
    assert found.longer_correct == 4  # the polite answer is also the longer one
    assert found.metrics["loss"] < 0.2 < steps[0].metrics["loss"]
    reward = RewardModel.load(tmp_path)
    tokenizer_ids = [
        pair.prompt + response
        for pair in encode_pairs(_tokenizer(tmp_path), preferences, max_length=64)
        for response in (pair.chosen, pair.rejected)
    ]
    scores = reward.normalised_scores(tokenizer_ids)
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert scores.std().item() == pytest.approx(1.0, abs=1e-3)
    assert (found.score_mean, found.score_std) == (reward.score_mean, reward.score_std)


@pytest.mark.integration
def test_swapping_chosen_and_rejected_turns_the_accuracy_around(
    tiny_policy, preferences, candidates, fp32, tmp_path
):
    swapped = preferences.rename({"chosen": "rejected", "rejected": "chosen"})
    config = RewardConfig(steps=1, batch_size=4, learning_rate=1e-9, held_out_fraction=0.4)
    one, other = (
        fit(tiny_policy, pairs, candidates, config, seed=0, precision=fp32, on_step=_ignore, out=tmp_path)
        for pairs in (preferences, swapped.select(preferences.columns))
    )
    assert one.correct == one.pairs - other.correct
    assert one.longer_correct == one.pairs - other.longer_correct


@pytest.mark.integration
def test_equal_scores_cost_ln_2_and_teach_nothing(tiny_policy, tokenizer, fp32):
    equal = [{**row, "rejected_ids": row["chosen_ids"], "margin": 0.0} for row in ROWS]
    model = RewardModel.from_policy(tiny_policy, seed=1).model
    trainer = PairTrainer(
        model=model,
        args=TRLConfig(**arguments(RewardConfig(steps=1, batch_size=3), seed=0, precision=fp32)),
        train_dataset=Dataset.from_list(equal),
        data_collator=DistinctCollator(pad_id=0),
        processing_class=tokenizer,
    )
    loss = trainer.compute_loss(model, DistinctCollator(pad_id=0)(equal))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert model.score.weight.grad.abs().max() < 1e-6


def _ignore(step):
    pass


def _tokenizer(folder):
    from rlhf.models.loading import load_tokenizer

    return load_tokenizer(folder)
