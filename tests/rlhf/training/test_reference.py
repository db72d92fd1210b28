"""The reference's log-probabilities: computed once, the same numbers that the trainer would compute itself."""

import polars as pl
import pytest
import torch

from rlhf.data.pairs import encode_pairs
from rlhf.models.loading import load_policy
from rlhf.training import reference
from rlhf.training.dpo import PreferenceTrainer, fit
from schemas.config import DPOConfig


def _scored(folder, preferences, fp32, lengths=(64,)):
    steps = []
    frame = reference.score_pairs(folder, preferences, lengths, precision=fp32, on_step=steps.append)
    return frame, steps


def test_each_response_has_its_log_probability_over_the_whole_vocabulary(tiny_policy, preferences, fp32):
    frame, _ = _scored(tiny_policy, preferences, fp32)
    model, tokenizer = load_policy(tiny_policy)
    pairs = encode_pairs(tokenizer, preferences, max_length=64)
    assert frame["row"].to_list() == [pair.row for pair in pairs]
    for column, side in (("chosen_logprob", "chosen"), ("rejected_logprob", "rejected")):
        for pair, found in zip(pairs[:4], frame[column], strict=False):
            response = getattr(pair, side)
            with torch.no_grad():
                logits = model(torch.tensor([pair.prompt + response])).logits[0]
            places = range(len(pair.prompt) - 1, len(pair.prompt) + len(response) - 1)
            expected = torch.log_softmax(logits, -1)[places, response].sum().item()
            assert found == pytest.approx(expected, abs=1e-4)


def test_what_occurs_twice_is_scored_once(tiny_policy, preferences, fp32):
    once, steps = _scored(tiny_policy, preferences, fp32)
    twice, more = _scored(tiny_policy, pl.concat([preferences, preferences]), fp32)
    assert sum(step.tokens for step in more) == sum(step.tokens for step in steps)
    assert twice["chosen_logprob"][20:].to_list() == once["chosen_logprob"].to_list()


def test_each_length_has_its_own_cut(tiny_policy, tokenizer, preferences, fp32):
    pairs = encode_pairs(tokenizer, preferences, max_length=64)
    short = max(len(pair.prompt) for pair in pairs) + 2
    frame, _ = _scored(tiny_policy, preferences, fp32, lengths=(short, 64))
    cut, whole = (frame.filter(pl.col("max_length") == length) for length in (short, 64))
    both = cut.join(whole, on="row")
    assert both.height == 20
    assert (both["chosen_logprob"] > both["chosen_logprob_right"]).all()  # fewer tokens are likelier


@pytest.mark.integration
def test_training_on_the_table_is_training_without_it_and_asks_the_reference_no_more(
    tiny_policy, preferences, fp32, tmp_path, monkeypatch
):
    config = DPOConfig(steps=4, batch_size=8, max_length=64, learning_rate=1e-3)

    def losses(**known):
        steps = []
        fit(
            tiny_policy, preferences, config, seed=0, precision=fp32, on_step=steps.append, out=tmp_path / "out",
            **known,
        )  # fmt: skip
        return [step.metrics["loss"] for step in steps]

    asked = losses()
    table, _ = _scored(tiny_policy, preferences, fp32)

    def refuse(*_):
        raise AssertionError("the reference was asked again")

    monkeypatch.setattr(PreferenceTrainer, "compute_ref_log_probs", refuse)
    assert losses(reference=table) == pytest.approx(asked, abs=1e-5)
