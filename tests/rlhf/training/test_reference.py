"""The reference's log-probabilities: computed once, the same numbers that the trainer would compute itself."""

import polars as pl
import pytest
import torch

from rlhf.data.pairs import encode_pairs
from rlhf.models.loading import load_policy
from rlhf.training import reference
from rlhf.training.dpo import PreferenceTrainer, fit
from schemas.config import DPOConfig
from schemas.config.aligners.dpo import PairUse


def _scored(folder, preferences, fp32, lengths=(64,)):
    """Score what so many steps learn from that every pair is among it."""
    told = []
    uses = [PairUse(max_length=length, batch_size=10, steps=40) for length in lengths]
    frame = reference.score_pairs(folder, preferences, uses, seed=0, precision=fp32, on_step=told.append)
    return frame.sort("max_length", "row"), told


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


def test_only_the_pairs_that_steps_learn_from_are_scored(tiny_policy, preferences, fp32):
    uses = [PairUse(max_length=64, batch_size=2, steps=steps) for steps in (1, 3)]
    frame = reference.score_pairs(
        tiny_policy, preferences, uses, seed=0, precision=fp32, on_step=lambda _: None
    )
    # Two pairs of the one use, six of the other, some of them the same.
    assert 6 <= frame.height <= 8


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
    use = PairUse(max_length=64, batch_size=8, steps=4)
    table = reference.score_pairs(
        tiny_policy, preferences, [use], seed=0, precision=fp32, on_step=lambda _: None
    )

    def refuse(*_):
        raise AssertionError("the reference was asked again")

    monkeypatch.setattr(PreferenceTrainer, "compute_ref_log_probs", refuse)
    assert losses(reference=table) == pytest.approx(asked, abs=1e-5)
