"""Best-of-n and rejection sampling: what is drawn, what is chosen, what is learnt from it."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from rlhf.data.chat import encode_prompt
from rlhf.models import best_of_n
from rlhf.models.best_of_n import Chooser, Group
from rlhf.models.loading import load_policy
from rlhf.models.precision import Precision
from rlhf.models.sampling import Completion, sample
from rlhf.training.rejection_sampling import fit, winners
from schemas.config import EnsembleScoring, RejectionSamplingConfig
from schemas.errors import DataRejected, ModelNotUsable

FP32 = Precision(threads=1, dtype="fp32")
MESSAGES = [[{"role": "user", "content": "hi " * number}] for number in range(1, 9)]
PROMPTS = pl.DataFrame({"prompt_id": [str(row) for row in range(8)], "prompt": MESSAGES})
DRAWING = {"max_new_tokens": 6, "temperature": 1.0, "precision": FP32}


def _chooser(folders: tuple[Path, Path], n: int) -> Chooser:
    policy, tokenizer = load_policy(folders[0])
    return Chooser.beside(policy, tokenizer, folders[1], n=n, scoring=EnsembleScoring())


def _draw(chooser: Chooser, *, batch_size: int = 100) -> list[Group]:
    ids = [encode_prompt(chooser.tokenizer, messages) for messages in MESSAGES]
    generator = torch.Generator().manual_seed(3)
    return chooser.draw(MESSAGES, ids, batch_size=batch_size, generator=generator, **DRAWING)


def _group(*scores: float, ids: tuple[list[int], ...]) -> Group:
    return Group([Completion(one, [0.0] * len(one), finished=True) for one in ids], list(scores))


def test_each_prompt_gets_n_responses_with_the_reward_models_own_scores(folders):
    chooser = _chooser(folders, 4)
    groups = _draw(chooser)
    assert [len(group.completions) for group in groups] == [4] * 8
    for messages, group in zip(MESSAGES, groups, strict=True):
        prompt = encode_prompt(chooser.tokenizer, messages)
        alone = [
            chooser.reward_model.normalised_scores([prompt + one.ids]).item() for one in group.completions
        ]
        assert group.scores == pytest.approx(alone, abs=1e-5)
        assert group.scores[group.best] == max(group.scores)
    assert len({tuple(one.ids) for one in groups[0].completions}) > 1


def test_the_batch_size_changes_nothing_that_is_drawn(folders):
    chooser = _chooser(folders, 3)
    wide, narrow = _draw(chooser), _draw(chooser, batch_size=5)
    for one, other in zip(wide, narrow, strict=True):
        assert [part.ids for part in one.completions] == [part.ids for part in other.completions]


def test_one_draw_in_a_group_is_the_plain_sampler_with_the_same_generator(folders):
    chooser = replace(_chooser(folders, 2), n=1)
    ids = [encode_prompt(chooser.tokenizer, messages) for messages in MESSAGES]
    plain = sample(
        chooser.policy, ids, max_new_tokens=6, temperature=1.0, stop=frozenset([1, *range(100, 180)]), pad_id=0,
        batch_size=100, generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    assert [group.completions[0].ids for group in _draw(chooser)] == [one.ids for one in plain]


def test_a_saved_chooser_comes_back_and_is_no_model_of_its_own(folders, tmp_path):
    best_of_n.save(*folders, tmp_path / "best", n=5, scoring=EnsembleScoring(combine="worst"))
    found = best_of_n.saved(tmp_path / "best")
    assert found is not None
    assert (found.n, found.scoring.combine) == (5, "worst")
    assert best_of_n.saved(folders[0]) is None
    load_policy(found.policy)
    with pytest.raises(ModelNotUsable, match="best-of-n policy"):
        load_policy(tmp_path / "best")


def test_what_is_learnt_is_the_best_response_and_never_the_prompt():
    prompts = [[5, 6], [7, 8, 9, 4, 3, 2]]
    groups = [
        _group(0.1, 0.9, 0.3, ids=([11], [12, 1], [13])),
        _group(0.5, 0.5, ids=([14, 15, 1], [16])),
    ]
    # Of equal scores the first; what is longer than seven tokens is cut.
    assert winners(prompts, groups, max_length=7) == [
        ([5, 6, 12, 1], [-100, -100, 12, 1]),
        ([7, 8, 9, 4, 3, 2, 14], [-100] * 6 + [14]),
    ]
    # A prompt without room for an answer teaches nothing.
    assert len(winners(prompts, groups, max_length=6)) == 1
    with pytest.raises(DataRejected, match="max_length=2"):
        winners(prompts, groups, max_length=2)


@pytest.mark.integration
def test_the_score_rises_from_round_to_round_and_everything_drawn_is_kept(folders, tmp_path):
    config = RejectionSamplingConfig(
        rounds=3,
        num_prompts=8,
        n=16,
        steps=40,
        batch_size=8,
        max_new_tokens=6,
        learning_rate=3e-2,
        max_length=64,
    )
    steps = []
    fitted = fit(
        *folders, PROMPTS, config, seed=0, precision=FP32, on_step=steps.append, out=tmp_path / "out"
    )
    rounds = fitted.rollouts.group_by("iteration").agg(pl.mean("score", "kl"), pl.len()).sort("iteration")
    assert rounds["len"].to_list() == [8 * 16] * 3
    first, second, third = rounds["score"]
    assert first + 0.2 < second
    assert second + 0.2 < third
    assert rounds["kl"][0] == 0.0  # the first round samples the SFT policy itself
    assert rounds["kl"][2] > rounds["kl"][1] > 0.0
    assert [step.step for step in steps] == list(range(1, 121))
    assert {step.total for step in steps} == {120}
    drawn = [step.sampled_tokens for step in steps if step.sampled_tokens]
    assert len(drawn) == 3
    assert all(8 * 16 <= tokens <= 8 * 16 * 6 for tokens in drawn)
    assert all(step.gradient_tokens > 0 for step in steps)
    assert fitted.metrics["best_score"] > fitted.metrics["score"]
    load_policy(tmp_path / "out")


@pytest.mark.integration
def test_no_prompts_is_said_before_anything_is_loaded(folders, tmp_path):
    with pytest.raises(DataRejected, match="empty"):
        fit(
            tmp_path / "none", folders[1], PROMPTS.clear(), RejectionSamplingConfig(), seed=0, precision=FP32,
            on_step=lambda _: None, out=tmp_path,
        )  # fmt: skip
