import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from rlhf.estimate import calibration
from rlhf.estimate.lengths import lengths_of
from rlhf.estimate.work import Lengths
from rlhf.models.precision import Precision
from schemas.config.loading import load_config
from schemas.config.models import ModelShape

FP32 = Precision(threads=1, dtype="fp32")
TINY = Qwen2Config(
    vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=6, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
)  # fmt: skip


def test_parameters_are_those_of_the_built_model():
    shape = calibration.shape_of(TINY)
    built = AutoModelForCausalLM.from_config(TINY)
    assert shape.parameters == sum(parameter.numel() for parameter in built.parameters())
    assert (shape.layers, shape.heads, shape.key_values) == (6, 4, 8)


def test_the_tiny_llama_is_the_one_that_pretraining_builds(tokenizer):
    from rlhf.training.pretrain import _llama

    shape = ModelShape(vocab_size=320)
    ours, theirs = calibration.tiny_llama(shape).to_dict(), _llama(tokenizer, shape, "cpu").to_dict()
    ids = {"pad_token_id", "eos_token_id", "bos_token_id", "attn_implementation", "_attn_implementation"}
    assert {key: value for key, value in ours.items() if key not in ids} == {
        key: value for key, value in theirs.items() if key not in ids
    }


def test_another_machine_is_reckoned_by_hand():
    shape = calibration.shape_of(TINY).model_copy(update={"parameters": 1_000_000})
    found = calibration.given(shape, Lengths(10, 10), [1, 8], flops=1e9, bandwidth=1e8)
    assert found.read == pytest.approx(2e6 / 1e9)
    assert found.trained == pytest.approx(6e6 / 1e9)
    # One sequence waits for 4 MB of weights at 100 MB/s; of eight each waits an eighth, but no less than its arithmetic.
    assert found.drawn[1] == pytest.approx(0.04)
    assert found.drawn[8] == pytest.approx(0.005)


@pytest.mark.integration
def test_training_takes_longer_than_reading_and_a_deep_model_is_extrapolated(monkeypatch):
    shape = calibration.shape_of(TINY)
    built: list[int] = []
    speeds = calibration._speeds

    def counted(config, *rest):
        built.append(config.num_hidden_layers)
        return speeds(config, *rest)

    monkeypatch.setattr(calibration, "_speeds", counted)
    whole = calibration.measure(TINY, shape, Lengths(8, 8), [2], FP32)
    assert built == [6]
    assert 0 < whole.read < whole.trained
    monkeypatch.setattr(calibration, "_SMALL", 0)
    far = calibration.measure(TINY, shape, Lengths(8, 8), [2], FP32)
    assert built == [6, 1, 2]
    # The same model, extrapolated from a third of it; times of microseconds jump about on a shared machine.
    assert far.trained == pytest.approx(whole.trained, rel=1.0)
    assert TINY.num_hidden_layers == 6
    assert torch.is_grad_enabled()


def test_lengths_come_from_the_data(tmp_path):
    path = tmp_path / "demonstrations.jsonl"
    path.write_text('{"prompt": "aaaa", "completion": "bbbb"}\n' * 3, encoding="utf-8")
    config = load_config("hh", [f"data.folder={tmp_path}", "data.demonstrations=[demonstrations.jsonl]"])
    found = lengths_of(config, {"demonstrations": [path], "preferences": []}, vocabulary=50_000)
    assert found == Lengths(prompt=1.0, response=1.0)
    world = lengths_of(load_config("helpdesk"), {}, vocabulary=512)
    assert 5 < world.prompt < 40
    assert 10 < world.response < 60
