import pytest

from rlhf.estimate.memory import lora_parameters, memory
from rlhf.estimate.work import Lengths
from schemas.config.loading import load_config
from schemas.config.models import LoraConfig
from schemas.estimates import Shape

# Llama 3.1 8B as its config.json has it: 32 layers of width 4096, feed-forward 14336, keys of 8 heads times 128.
LLAMA = Shape(parameters=8_030_261_248, layers=32, hidden=4096, heads=32, key_values=1024, vocabulary=128_256)
LENGTHS = Lengths(prompt=100, response=100)


def test_full_training_holds_sixteen_bytes_per_parameter():
    found = memory(load_config("helpdesk", ["sft.batch_size=1"]), LLAMA, LENGTHS, bf16=True)["sft"]
    weights = [size for name, size in found.items() if name not in {"activations", "logits"}]
    assert sum(weights) == 16 * LLAMA.parameters
    # 192 tokens at most: 34 bytes per token, layer and unit of width; logits and their gradient in fp32.
    assert found["activations"] == 192 * 32 * 4096 * 34
    assert found["logits"] == 192 * 128_256 * 8


def test_ppo_holds_four_models_of_which_two_are_trained():
    plain = memory(load_config("helpdesk"), LLAMA, LENGTHS, bf16=True)["ppo"]
    models = {name for name in plain if name in {"policy", "reference", "reward model", "critic"}}
    assert len(models) == 4
    held = sum(
        size for name, size in plain.items() if name not in {"activations", "logits", "key-value cache"}
    )
    assert held == (16 + 4 + 4 + 16) * LLAMA.parameters
    shared = memory(load_config("helpdesk", ["ppo.shared_trunk=true"]), LLAMA, LENGTHS, bf16=True)["ppo"]
    assert "critic" not in shared


def test_adapters_need_no_reference_and_little_else():
    found = memory(load_config("helpdesk", ["ppo.lora.rank=8"]), LLAMA, LENGTHS, bf16=True)["ppo"]
    assert "reference" not in found
    assert found["optimizer of the policy"] < 0.01 * LLAMA.parameters * 8


def test_four_bits_are_an_eighth_of_the_frozen_weights():
    plain, small = (
        memory(load_config("helpdesk", overrides), LLAMA, LENGTHS, bf16=True)["ppo"]["policy"]
        for overrides in (["ppo.lora.rank=8"], ["ppo.lora.rank=8", "ppo.load_in_4bit=true"])
    )
    assert plain - small == 7 / 8 * 4 * LLAMA.parameters


def test_adapters_on_every_linear_layer_have_the_parameters_that_peft_counts():
    # r (in + out) for q, o: 8192 each; k, v: 5120 each; gate, up, down: 18432 each: 20_971_520 at rank 8,
    # what `print_trainable_parameters` says of Llama 3.1 8B. The head that is not tied blurs the width by some percent.
    assert lora_parameters(LLAMA, LoraConfig(rank=8)) == pytest.approx(20_971_520, rel=0.06)


def test_checkpointing_keeps_a_layers_input_only():
    plain, less = (
        memory(load_config("helpdesk", overrides), LLAMA, LENGTHS, bf16=True)["sft"]["activations"]
        for overrides in ([], ["sft.gradient_checkpointing=true"])
    )
    assert less * 17 == plain


def test_sampling_holds_keys_and_values_of_every_position():
    found = memory(load_config("helpdesk", ["sample.batch_size=4"]), LLAMA, LENGTHS, bf16=True)["sample"]
    # Keys and values, 32 layers, 1024 wide, 4 sequences of 164 positions, 2 bytes.
    assert found["key-value cache"] == 2 * 32 * 1024 * 4 * 164 * 2
