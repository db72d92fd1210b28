import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

from rlhf.models.loading import attach_lora, load_policy, merge
from rlhf.models.precision import Precision, autocast
from rlhf.models.reward import RewardModel
from schemas.config.models import LoraConfig
from schemas.config.reward import EnsembleScoring
from schemas.errors import ModelNotUsable

SEQUENCES = [[9, 8, 7], [9, 8, 7, 6, 1, 5, 1], [3], [9, 8, 7, 1], [5] * 12]


@pytest.fixture
def reward(tiny_policy):
    return RewardModel.from_policy(tiny_policy, seed=3)


def _positions_model() -> RewardModel:
    """GPT-2 learns positions, so that a wrong position shows."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40, n_positions=64, n_embd=16, n_layer=2, n_head=2, num_labels=1, pad_token_id=0
    )
    return RewardModel(GPT2ForSequenceClassification(config).eval())


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_neither_batch_size_nor_neighbours_change_a_score(reward, batch_size):
    for model in (reward, _positions_model()):
        alone = torch.cat([model.raw_scores([ids]) for ids in SEQUENCES])
        together = model.raw_scores(SEQUENCES, batch_size=batch_size)
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_score_is_the_heads_output_at_the_last_token(reward):
    ids = [9, 8, 7, 1, 0]  # ends in EOS and pad: both are tokens like any other here
    hidden = reward.backbone(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    expected = float((hidden * reward.head.weight[0]).sum())
    assert reward.raw_scores([ids]).item() == pytest.approx(expected, abs=1e-5)
    assert reward.raw_scores([ids[:-1]]).item() != pytest.approx(expected, abs=1e-4)


def test_no_sequences_have_no_scores(reward):
    assert reward.raw_scores([]).shape == (0,)


def test_saved_scores_and_their_scale_come_back(reward, tmp_path):
    reward.set_normalisation(mean=0.5, std=2.0)
    reward.save(tmp_path)
    again = RewardModel.load(tmp_path)
    raw = reward.raw_scores(SEQUENCES)
    torch.testing.assert_close(again.raw_scores(SEQUENCES), raw, rtol=0, atol=0)
    torch.testing.assert_close(again.normalised_scores(SEQUENCES), (raw - 0.5) / 2.0, rtol=0, atol=1e-6)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["rlhf_score_mean"], config["rlhf_score_std"]) == (0.5, 2.0)


def test_another_program_reads_the_same_scores(reward, tmp_path):
    reward.set_normalisation(mean=0.0, std=1.0)
    reward.save(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    ids = [9, 8, 7, 6]
    assert plain(torch.tensor([ids])).logits.item() == pytest.approx(
        reward.raw_scores([ids]).item(), abs=1e-5
    )


def test_a_policy_is_not_taken_for_a_reward_model(tiny_policy):
    with pytest.raises(ModelNotUsable, match="rlhf_score_mean"):
        RewardModel.load(tiny_policy)


def test_the_fresh_head_is_not_reported_as_a_missing_weight(tiny_policy, caplog):
    reward = RewardModel.from_policy(tiny_policy, seed=0)
    assert caplog.text == ""
    trunk = load_policy(tiny_policy)[0].model.state_dict()
    assert all(torch.equal(weight, trunk[name]) for name, weight in reward.backbone.state_dict().items())
    assert reward.head.weight.std().item() == pytest.approx(1 / 33**0.5, rel=0.5)


def test_missing_trunk_weights_are_refused(tiny_policy, reward, tmp_path):
    folder = shutil.copytree(tiny_policy, tmp_path / "policy")
    _drop(folder, "model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ModelNotUsable, match=r"model\.layers\.1\.mlp\.up_proj"):
        RewardModel.from_policy(folder, seed=0)


@pytest.mark.parametrize("name", ["score.weight", "model.norm.weight"])
def test_a_saved_reward_model_that_lacks_weights_is_refused(reward, tmp_path, name):
    reward.set_normalisation(mean=0.0, std=1.0)
    reward.save(tmp_path)
    _drop(tmp_path, name)
    with pytest.raises(ModelNotUsable, match=name):
        RewardModel.load(tmp_path)


def _drop(folder, name):
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_model_without_a_scalar_head_is_refused():
    with pytest.raises(ModelNotUsable, match="score"):
        RewardModel(nn.Linear(2, 2))


def test_the_head_is_fp32_inside_autocast(reward):
    with autocast(Precision(threads=1, dtype="bf16")):
        assert reward.head(torch.ones(1, 32, dtype=torch.bfloat16)).dtype == torch.float32
        coarse = reward.raw_scores(SEQUENCES)
    torch.testing.assert_close(coarse, reward.raw_scores(SEQUENCES), rtol=0.1, atol=0.1)


def test_the_seed_decides_the_head(tiny_policy):
    first, same, other = (RewardModel.from_policy(tiny_policy, seed=seed).head.weight for seed in (1, 1, 2))
    torch.testing.assert_close(first, same, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_an_adapted_head_survives_merge_and_save(reward, tmp_path):
    adapted = attach_lora(reward.model, LoraConfig(rank=2), "SEQ_CLS").eval()
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad:
                weight.add_(0.05)
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert any("score" in name for name in trained)
    ids = torch.tensor([[9, 8, 7, 6]])
    expected = adapted(ids).logits.item()
    merged = RewardModel(merge(adapted))
    merged.set_normalisation(mean=0.0, std=1.0)
    merged.save(tmp_path)
    assert RewardModel.load(tmp_path).raw_scores(ids.tolist()).item() == pytest.approx(expected, abs=1e-4)


def _heads(policy, *, size=3):
    reward = RewardModel.from_policy(policy, seed=3, heads=size)
    reward.set_normalisation(mean=[0.5, -1.0, 0.0][:size], std=[2.0, 1.0, 0.5][:size])
    return reward


def _adapters(policy):
    reward = RewardModel.from_policy(policy, seed=3)
    torch.manual_seed(0)
    for _ in range(2):
        reward.add_adapter(LoraConfig(rank=2))
        with torch.no_grad():
            for weight in reward.model.parameters():
                if weight.requires_grad:
                    weight.add_(0.1 * torch.randn_like(weight))
    reward.model.eval()
    reward.set_normalisation(mean=[0.5, -1.0], std=[2.0, 1.0])
    return reward


@pytest.mark.parametrize("build", [_heads, _adapters])
def test_the_members_of_an_ensemble_come_back_as_they_were(tiny_policy, tmp_path, build):
    reward = build(tiny_policy)
    raw = reward.member_scores(SEQUENCES)
    assert (raw[:, 0] - raw[:, 1]).abs().min() > 1e-4
    reward.save(tmp_path)
    again = RewardModel.load(tmp_path)
    torch.testing.assert_close(again.member_scores(SEQUENCES), raw, rtol=0, atol=1e-6)
    expected = (raw[:, 1] + 1.0) / 1.0
    torch.testing.assert_close(again.normalised_members(SEQUENCES)[:, 1], expected, rtol=0, atol=1e-6)
    assert str(tiny_policy) not in "".join(file.read_text() for file in tmp_path.rglob("*.json"))


def test_a_trained_adapter_leaves_the_others_and_the_trunk_alone(tiny_policy):
    reward = _adapters(tiny_policy)
    before = reward.member_scores(SEQUENCES)
    reward.adapted.set_adapter("member1")
    trained = [name for name, weight in reward.model.named_parameters() if weight.requires_grad]
    assert trained
    assert all(".member1." in name for name in trained)
    with torch.no_grad():
        for weight in reward.model.parameters():
            if weight.requires_grad:
                weight.add_(0.1)
    after = reward.member_scores(SEQUENCES)
    torch.testing.assert_close(after[:, 0], before[:, 0], rtol=0, atol=0)
    assert (after[:, 1] - before[:, 1]).abs().min() > 1e-3


def test_the_scores_of_an_ensemble_are_combined_as_asked(tiny_policy, tmp_path):
    _heads(tiny_policy).save(tmp_path)
    members = RewardModel.load(tmp_path).normalised_members(SEQUENCES)
    expected = {
        "mean": members.mean(1),
        "worst": members.min(1).values,
        "uncertainty": members.mean(1) - 2.0 * members.var(1, correction=0),
    }
    for how, wanted in expected.items():
        scoring = EnsembleScoring(combine=how, variance_coef=2.0)
        found = RewardModel.load(tmp_path, scoring=scoring).normalised_scores(SEQUENCES)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_a_critic_starts_from_the_mean_of_the_heads_or_the_first_adapter(tiny_policy):
    heads = _heads(tiny_policy)
    mean = heads.normalised_scores(SEQUENCES)
    torch.testing.assert_close(heads.as_single().normalised_scores(SEQUENCES), mean, rtol=0, atol=1e-5)
    adapters = _adapters(tiny_policy)
    first = adapters.normalised_members(SEQUENCES)[:, 0]
    single = adapters.as_single()
    assert single.members == 1
    torch.testing.assert_close(single.normalised_scores(SEQUENCES), first, rtol=0, atol=1e-5)


def test_an_adapter_that_is_no_safetensors_file_is_refused(tiny_policy, tmp_path):
    _adapters(tiny_policy).save(tmp_path)
    weights = tmp_path / "adapters" / "member1" / "adapter_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelNotUsable, match="pickles"):
        RewardModel.load(tmp_path)
