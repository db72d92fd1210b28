import math
import warnings

import pytest
import torch
from datasets import Dataset
from torch.nn import functional
from transformers import modeling_utils
from trl import SFTConfig as TRLConfig

from rlhf.data.chat import decode_response, encode_prompt, encode_response, stop_ids
from rlhf.models.loading import load_policy, save_model
from rlhf.training.sft import IGNORED, LanguageModelTrainer, encode_examples, fit
from rlhf.training.trl_adapter import arguments
from schemas.config.models import LoraConfig
from schemas.config.supervised import OptimiserConfig, SFTConfig
from schemas.errors import DataRejected, TrainingDiverged


def _config(**changes) -> SFTConfig:
    return SFTConfig(**{"steps": 2, "batch_size": 2, "max_length": 64, **changes})


def _greedy(folder, prompt):
    model, tokenizer = load_policy(folder)
    ids = torch.tensor([encode_prompt(tokenizer, prompt)])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=30)
    response = output[0, ids.shape[1] :].tolist()
    return decode_response(tokenizer, response), response[-1] in stop_ids(model, tokenizer)


def test_labels_are_the_response_with_eos_once_and_never_the_prompt(tokenizer, demonstrations):
    examples = encode_examples(tokenizer, demonstrations.iter_rows(named=True), max_length=64)
    for (ids, labels), row in zip(examples, demonstrations.iter_rows(named=True), strict=True):
        prompt, response = (
            encode_prompt(tokenizer, row["prompt"]),
            encode_response(tokenizer, row["response"]),
        )
        assert ids == prompt + response
        assert labels == [IGNORED] * len(prompt) + response
        assert labels.count(tokenizer.eos_token_id) == 1


def test_a_cut_response_gets_no_eos_and_a_prompt_that_fills_the_room_is_left_out(
    tokenizer, demonstrations, caplog
):
    whole = encode_examples(tokenizer, demonstrations.iter_rows(named=True), max_length=64)
    first, second = (len(encode_prompt(tokenizer, prompt)) for prompt in demonstrations["prompt"])
    assert first < second  # else no room has place for the beginning of an answer to one of them only
    room = second
    cut = encode_examples(tokenizer, demonstrations.iter_rows(named=True), max_length=room)
    assert cut == [(whole[0][0][:room], whole[0][1][:room])]
    assert tokenizer.eos_token_id not in cut[0][1]
    assert "2 of 2" in caplog.text
    with pytest.raises(DataRejected, match="max_length"):
        encode_examples(tokenizer, demonstrations.iter_rows(named=True), max_length=3)


def test_the_loss_is_the_mean_over_response_tokens_whatever_the_micro_batches(
    tiny_policy, demonstrations, fp32
):
    model, tokenizer = load_policy(tiny_policy)
    rows = encode_examples(tokenizer, demonstrations.iter_rows(named=True), max_length=64)
    total, count = 0.0, 0
    with torch.no_grad():
        for ids, labels in rows:
            logits = model(torch.tensor([ids])).logits[0]
            for position, label in enumerate(labels):
                if label != IGNORED:  # the logits before a token predict it
                    total -= float(functional.log_softmax(logits[position - 1], dim=-1)[label])
                    count += 1
    for micro in (1, 2):
        steps = []
        model, _ = load_policy(tiny_policy)
        config = OptimiserConfig(learning_rate=1e-9, steps=1, batch_size=2, micro_batch_size=micro)
        trainer = LanguageModelTrainer(
            model=model,
            args=TRLConfig(**arguments(config, seed=0, precision=fp32), max_length=None),
            train_dataset=Dataset.from_list([{"input_ids": ids, "labels": labels} for ids, labels in rows]),
            processing_class=tokenizer,
        )
        steps.append(trainer.train().training_loss)
        assert steps[0] == pytest.approx(total / count, abs=1e-5)


def test_every_trap_of_the_trainers_arguments_is_closed(fp32):
    args = TRLConfig(**arguments(_config(), seed=7, precision=fp32))
    assert not args.bf16
    assert not args.activation_checkpointing
    assert not args.gradient_checkpointing  # the old name, which TRL reads
    assert args.report_to == []
    assert args.save_strategy == "no"
    assert not args.logging_nan_inf_filter
    assert args.seed == 7


@pytest.mark.parametrize("wanted", [True, False])
def test_checkpointing_is_asked_for_by_the_name_that_nobody_warns_of(fp32, wanted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        args = TRLConfig(**arguments(_config(gradient_checkpointing=wanted), seed=0, precision=fp32))
    assert (args.activation_checkpointing, args.gradient_checkpointing) == (wanted, wanted)


@pytest.mark.integration
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_checkpointing_happens_and_changes_no_weight(
    tiny_policy, demonstrations, fp32, tmp_path, monkeypatch, lora
):
    calls = []
    recompute = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        modeling_utils, "checkpoint", lambda *args, **options: calls.append(1) or recompute(*args, **options)
    )
    for name, wanted in (("kept", False), ("recomputed", True)):
        config = _config(gradient_checkpointing=wanted, lora=lora)
        out = tmp_path / name
        fit(tiny_policy, demonstrations, config, seed=0, precision=fp32, on_step=lambda step: None, out=out)
        assert bool(calls) is wanted
    kept, recomputed = (load_policy(tmp_path / name)[0].state_dict() for name in ("kept", "recomputed"))
    for name, weight in kept.items():
        torch.testing.assert_close(recomputed[name], weight, rtol=0, atol=1e-6)


@pytest.fixture
def sharp_policy(tiny_policy, tmp_path):
    """Adapters change neither the last norm nor the head, so these decide how sure an adapted model can be.

    In `tiny_policy` no logit exceeds sqrt(32) * |embedding| = 5.7 * 1.1 while the other 319 spread by 1.1: the
    loss stays above log(1 + 319 * exp(0.6 - 6.4)) = 0.7. A threefold norm lifts the largest logit to 19.
    """
    model, tokenizer = load_policy(tiny_policy)
    with torch.no_grad():
        model.model.norm.weight.mul_(3.0)
    save_model(model, tokenizer, tmp_path / "sharp")
    return tmp_path / "sharp"


@pytest.mark.integration
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=8, alpha=32)])
def test_an_overfitted_policy_answers_and_stops_by_itself(sharp_policy, demonstrations, fp32, tmp_path, lora):
    steps = []
    config = _config(steps=60, learning_rate=1e-2, lora=lora)
    metrics = fit(
        sharp_policy, demonstrations, config, seed=0, precision=fp32, on_step=steps.append, out=tmp_path
    )
    assert _greedy(tmp_path, demonstrations["prompt"][0]) == ("We are open from nine to five.", True)
    assert [step.step for step in steps] == list(range(1, 61))
    assert {step.total for step in steps} == {60}
    assert all(step.tokens > 0 for step in steps)
    assert metrics["loss"] == pytest.approx(sum(step.metrics["loss"] for step in steps[-6:]) / 6)
    assert metrics["loss"] < 0.1 < steps[0].metrics["loss"]
    assert not list(tmp_path.glob("adapter*"))


@pytest.mark.integration
def test_the_same_seed_gives_the_same_weights_and_nothing_on_standard_output(
    tiny_policy, demonstrations, fp32, tmp_path, capsys
):
    for name in ("one", "two"):
        fit(
            tiny_policy,
            demonstrations,
            _config(),
            seed=5,
            precision=fp32,
            on_step=lambda step: None,
            out=tmp_path / name,
        )
    one, two = (load_policy(tmp_path / name)[0].state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert capsys.readouterr().out == ""


@pytest.mark.integration
def test_a_diverged_loss_ends_the_stage(tiny_policy, demonstrations, fp32, tmp_path):
    model, tokenizer = load_policy(tiny_policy)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(math.nan)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(TrainingDiverged, match="loss is nan at step 1"):
        fit(
            tmp_path,
            demonstrations,
            _config(),
            seed=0,
            precision=fp32,
            on_step=lambda step: None,
            out=tmp_path / "out",
        )
