import math

import polars as pl
import pytest
import torch
from datasets import Dataset
from trl import RewardConfig as TRLConfig
from trl.trainer.reward_trainer import DataCollatorForPreference, RewardTrainer

from rlhf.data.pairs import Pair, encode_pairs
from rlhf.models.loading import load_tokenizer
from rlhf.models.reward import RewardModel
from rlhf.training import reward_steps
from rlhf.training.comparisons import collate, from_pairs
from rlhf.training.reward import fit
from rlhf.training.reward_steps import cost, train
from rlhf.training.trl_adapter import arguments
from schemas.config.models import LoraConfig
from schemas.config.reward import EnsembleConfig, RewardConfig
from schemas.errors import DataRejected

ROWS = [
    {"chosen_ids": [9, 8, 7, 1], "rejected_ids": [9, 8, 6, 5, 1], "margin": 0.0},
    {"chosen_ids": [9, 3, 7, 1], "rejected_ids": [9, 3, 4, 1], "margin": 0.0},
    {"chosen_ids": [9, 5, 4, 1], "rejected_ids": [9, 5, 6, 5, 1], "margin": 0.5},
]
ONE = torch.ones(3)


def _comparisons():
    return from_pairs(
        Pair(row=row, prompt_id=str(row), prompt=pair["chosen_ids"][:2], chosen=pair["chosen_ids"][2:],
             rejected=pair["rejected_ids"][2:], margin=pair["margin"])
        for row, pair in enumerate(ROWS)
    )  # fmt: skip


def _fit(start, preferences, candidates, precision, out, *, rankings=None, weights=None, **changes):
    steps = []
    config = RewardConfig(
        **{"steps": 40, "batch_size": 4, "learning_rate": 5e-3, "max_length": 64, **changes}
    )
    found = fit(
        start, preferences, rankings, candidates, config,
        rater_weights=weights or {}, seed=0, precision=precision, on_step=steps.append, out=out,
    )  # fmt: skip
    return found, steps


def _right(folder, preferences):
    pairs = encode_pairs(load_tokenizer(folder), preferences, max_length=64)
    ids = [pair.prompt + response for pair in pairs for response in (pair.chosen, pair.rejected)]
    scores = RewardModel.load(folder).normalised_scores(ids)
    return float((scores[::2] > scores[1::2]).float().mean()), scores


@pytest.mark.integration
def test_loss_and_gradient_are_trls(tiny_policy, tokenizer, fp32):
    config = RewardConfig(steps=1, batch_size=3, center_coefficient=0.1)
    ours = RewardModel.from_policy(tiny_policy, seed=1)
    batch = collate(_comparisons(), torch.device("cpu"))
    scores = ours.scores(batch.ids_NL, batch.lengths_N)[:, 0][batch.rows_GK]
    found = cost(scores, batch, config, ONE)
    (found.loss / found.weight).backward()
    theirs = RewardModel.from_policy(tiny_policy, seed=1).model
    trainer = RewardTrainer(
        model=theirs,
        args=TRLConfig(**arguments(config, seed=0, precision=fp32), center_rewards_coefficient=0.1),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=tokenizer,
    )
    expected = trainer.compute_loss(theirs, DataCollatorForPreference(pad_token_id=0)(ROWS))
    expected.backward()
    assert (found.loss / found.weight).item() == pytest.approx(expected.item(), abs=1e-6)
    for name, parameter in theirs.named_parameters():
        gradient = ours.model.get_parameter(name).grad
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)


def test_micro_batches_give_the_gradient_of_the_whole_batch(tiny_policy, fp32, monkeypatch):
    """Of prompts with different numbers of pairs and weights, for a single model and for heads."""
    comparisons = [
        *_comparisons(),
        *from_pairs(
            Pair(row=0, prompt_id="many", prompt=[9, 4], chosen=[7, place, 1], rejected=[6, place, 1], weight=0.3)
            for place in range(3)
        ),
    ]  # fmt: skip
    monkeypatch.setattr(reward_steps, "schedule", lambda *_, **__: [0, 1, 2, 3])
    for heads in (1, 3):
        weights = []
        for size in (None, 1, 2):
            model = RewardModel.from_policy(tiny_policy, seed=1, heads=heads)
            config = RewardConfig(steps=1, batch_size=4, micro_batch_size=size, center_coefficient=0.0)
            list(train(model, comparisons, config, precision=fp32, seed=0))
            weights.append(model.head.weight.detach())
        for other in weights[1:]:
            torch.testing.assert_close(other, weights[0], rtol=0, atol=1e-6)


def test_a_pair_counts_by_its_weight_and_a_prompt_by_its_emphasis():
    batch = collate(_comparisons(), torch.device("cpu"))
    scores = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    config = RewardConfig(center_coefficient=0.0)
    found = cost(scores, batch, config, torch.tensor([1.0, 0.0, 2.0]))
    # gaps 1, (0) and -2 less margin 0.5
    expected = (math.log1p(math.exp(-1)) + 2 * math.log1p(math.exp(2.5))) / 3
    assert float(found.loss / found.weight) == pytest.approx(expected, abs=1e-6)
    assert (float(found.right), float(found.pairs)) == (1.5, 3.0)
    ranked = cost(
        scores, batch, config.model_copy(update={"loss": "plackett_luce"}), torch.tensor([1.0, 0.0, 2.0])
    )
    expected = (math.log1p(math.exp(-1)) + 2 * math.log1p(math.exp(2))) / 3
    assert float(ranked.loss / ranked.weight) == pytest.approx(expected, abs=1e-6)


@pytest.mark.integration
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lora": LoraConfig(rank=4, alpha=16)},
        {"loss": "plackett_luce"},
        {"ensemble": EnsembleConfig(kind="heads", size=3)},
        {"ensemble": EnsembleConfig(kind="adapters", size=2), "lora": LoraConfig(rank=4, alpha=16)},
        {"gradient_checkpointing": True},
    ],
)
def test_it_learns_the_preference_and_normalises_the_scores(
    tiny_policy, preferences, candidates, fp32, tmp_path, changes
):
    found, steps = _fit(tiny_policy, preferences, candidates, fp32, tmp_path, **changes)
    assert found.metrics["loss"] < 0.2 < steps[0].metrics["loss"]
    assert [step.step for step in steps] == list(range(1, steps[-1].total + 1))
    right, scores = _right(tmp_path, preferences)
    assert right == 1.0
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-3)
    reward = RewardModel.load(tmp_path)
    members = reward.normalised_members(
        [
            pair.prompt + pair.chosen
            for pair in encode_pairs(load_tokenizer(tmp_path), preferences, max_length=64)
        ]
    )
    assert members.shape == (20, reward.members)
    if reward.members > 1:
        assert float(members.std(dim=1).min()) > 0  # no two members are the same
    else:
        assert scores.std().item() == pytest.approx(1.0, abs=1e-3)
    assert (found.score_mean, found.score_std) == (reward.score_mean, reward.score_std)


@pytest.mark.integration
def test_weights_decide_between_contrary_votes_unless_they_are_switched_off(
    tiny_policy, preferences, candidates, fp32, tmp_path
):
    contrary = preferences.rename({"chosen": "rejected", "rejected": "chosen"}).select(preferences.columns)
    table = pl.concat([preferences, contrary.with_columns(weight=0.1), contrary.with_columns(weight=0.1)])
    for weighted, expected in ((True, 1.0), (False, 0.0)):
        _fit(tiny_policy, table, candidates, fp32, tmp_path, weighted=weighted)
        assert _right(tmp_path, preferences)[0] == expected


@pytest.mark.integration
def test_rankings_teach_and_useless_raters_are_refused(tiny_policy, preferences, candidates, fp32, tmp_path):
    rankings = candidates.select("prompt_id", "prompt", "responses", "finished").with_columns(
        rater=pl.lit("ann"), ranks=pl.lit([2, 1])
    )
    arguments = {"rankings": rankings, "loss": "plackett_luce"}
    _fit(tiny_policy, preferences, candidates, fp32, tmp_path, **arguments)
    assert _right(tmp_path, preferences)[0] == 0.0  # ann ranks the other way round
    with pytest.raises(DataRejected, match="better than chance"):
        _fit(tiny_policy, preferences, candidates, fp32, tmp_path, weights={"ann": 0.0}, **arguments)


@pytest.mark.integration
def test_decorrelation_takes_the_length_out_of_the_score(
    tiny_policy, candidates, preferences, fp32, tmp_path
):
    """The longer answer is always the chosen one, so nothing but length is to be learnt: it no longer is."""
    with_length, _ = _fit(tiny_policy, preferences, candidates, fp32, tmp_path)
    without, _ = _fit(tiny_policy, preferences, candidates, fp32, tmp_path, length_decorrelation=20.0)
    assert with_length.metrics["length_correlation"] > 0.8
    assert without.metrics["length_correlation"] < 0.5
