"""What a recipe asks of an aligner that the aligner cannot do is refused before anything is trained."""

import pytest

from schemas.config import DPOConfig, KTOConfig
from schemas.config.loading import load_config
from schemas.errors import ConfigError


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["dpo.loss=dpo"], r"dpo\.loss\.0: Input should be 'sigmoid', 'hinge', 'ipo', .* 'sft' or 'sigmoid_norm' \(found 'dpo'\)"),
        (["dpo.beta=0"], r"dpo\.beta: Input should be greater than 0 \(found 0\)"),
        (["dpo.loss=[sigmoid, sft]", "dpo.loss_weights=[1]"], "loss_weights has 1 numbers for 2 losses; give one each"),
        (["dpo.loss=[sft, sft]"], "names one twice; use loss_weights"),
        (["dpo.label_smoothing=0.1"], "changes nothing for loss=sigmoid; leave it at 0, or use one of aot, aot_unpaired, exo_pair, robust"),
        (["dpo.loss=exo_pair"], "loss=exo_pair takes the logarithm of label_smoothing; set it above 0"),
        (["dpo.loss=aot"], "loss=aot compares the sorted batch .* set weighted=false"),
        (["aligners=[{method: kto, beta: 0}]"], r"kto\.beta: Input should be greater than 0"),
        (["aligners=[{method: kto, labels: thumbs}]"], "labels: Input should be 'preferences', 'feedback' or 'both'"),
        (["aligners=[{method: kto, labels: feedback}]"], r"kto\.labels=feedback but data\.feedback names no file .* or use labels=preferences"),
        (["aligners=[{method: kto, micro_batch_size: 1}]"], "micro_batch_size=1 leaves no other response .* use 2 or more"),
        (["aligners=[{method: orpo, beta: 0.1}]"], "beta would tie the policy to a reference, and orpo has none; its own keys are .*weighted, odds_weight"),
        (["aligners=[{method: orpo, reference: sft}]"], "reference would tie the policy to a reference, and orpo has none"),
        (["aligners=[{method: orpo, odds_weight: 0}]"], r"orpo\.odds_weight: Input should be greater than 0"),
        (["aligners=[{method: cpo, loss: simpo}]"], r"cpo\.loss: Input should be 'sigmoid', 'hinge' or 'ipo'"),
        (["aligners=[{method: cpo, beta: 0}]"], r"cpo\.beta: Input should be greater than 0"),
        (["aligners=[{method: cpo, loss: ipo, label_smoothing: 0.1}]"], "changes nothing for loss=ipo; leave it at 0, or use sigmoid"),
        (["aligners=[{method: simpo, kl_coef: 0.1}]"], "kl_coef would tie the policy to a reference, and simpo has none"),
        (["aligners=[{method: simpo, beta: 0}]"], r"simpo\.beta: Input should be greater than 0"),
        (["aligners=[{method: rloo, group_size: 1}]"], r"rloo\.group_size: Input should be greater than or equal to 2 \(found 1\)"),
        (["aligners=[{method: grpo, group_size: 1}]"], r"grpo\.group_size: Input should be greater than or equal to 2 \(found 1\)"),
        (["aligners=[{method: grpo, group_size: 7}]"], "batch_size=128 is not a multiple of group_size=7"),
        (["aligners=[{method: grpo, loss: ppo}]"], "loss: Input should be 'grpo', 'dr_grpo' or 'dapo'"),
        (["aligners=[{method: grpo, kl: {estimator: k3, place: loss}}]"], r"does not descend KL\(policy \|\| reference\)"),
        (["dpo.load_in_4bit=true"], "load_in_4bit=true needs adapters, .* set lora.rank, such as lora.rank=16, or load_in_4bit=false"),
        (["ppo.load_in_4bit=true", "ppo.lora.rank=4"], "ppo.load_in_4bit=true needs a GPU, and compute.device=cpu; set ppo.load_in_4bit=false"),
        (["sft.load_in_4bit=true", "sft.lora.rank=4"], "sft.load_in_4bit=true: only aligners can have it"),
        (["aligners=[{method: ddpo}]"], "expected tags: 'ppo', 'rloo', 'grpo', 'rejection_sampling', 'best_of_n', 'dpo', 'kto'"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_its_key_and_what_is_allowed(overrides, wanted):
    with pytest.raises(ConfigError, match=wanted):
        load_config("micro", overrides)


def test_several_losses_may_be_given_with_weights():
    config = DPOConfig.model_validate({"loss": ["sigmoid", "sft"], "loss_weights": [1, 0.2]})
    assert config.loss == ("sigmoid", "sft")
    assert config.loss_weights == (1.0, 0.2)
    assert DPOConfig.model_validate({"loss": "ipo"}).loss == ("ipo",)
    assert DPOConfig.model_validate(config.model_dump(mode="json")) == config


def test_feedback_of_files_is_what_kto_may_take(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: files\n"
        "data: {source: files, corpus: [c.txt], demonstrations: [d.jsonl], preferences: [p.jsonl], feedback: [f.jsonl]}\n"
        "preferences: {source: files}\n"
        "evaluate: {judge: reward}\n"
        "aligners: [{method: kto, labels: both}]\n"
    )
    aligner = load_config(str(recipe)).aligners[0]
    assert isinstance(aligner, KTOConfig)
    assert aligner.labels == "both"
