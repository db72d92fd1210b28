"""The reward model reads a sequence at its last token, whatever surrounds it."""

from pathlib import Path

import pytest
import torch

from rlhf.conformance import truth
from rlhf.conformance.backend import Backend, Lora, Models
from rlhf.conformance.models import EOS, id_of

TEXT = [5, 6, 40, 7, 41]


@pytest.mark.item(1, trainer="reward")
@pytest.mark.parametrize("pad_is_eos", [False, True], ids=["pad", "pad is eos"])
def test_a_text_that_ends_scores_by_its_end(backend: Backend, models: Models, pad_is_eos: bool) -> None:
    """EOS is the last token: a mask that is made of ids would take it for padding where the two are one."""
    sequences = [TEXT, [*TEXT, _eos(models)]]
    found = backend.scores(models.reward, sequences, pad_is_eos=pad_is_eos)
    torch.testing.assert_close(found, truth.scores(models.reward, sequences), rtol=0, atol=1e-5)


@pytest.mark.item(2, trainer="reward")
@pytest.mark.parametrize("pad_is_eos", [False, True], ids=["pad", "pad is eos"])
def test_eos_within_a_conversation_hides_nothing(backend: Backend, models: Models, pad_is_eos: bool) -> None:
    """Each turn but the last ends in one."""
    eos = _eos(models)
    sequences = [[5, eos, 6, 40, eos, 8, 9], [4] * 30]
    found = backend.scores(models.reward, sequences, pad_is_eos=pad_is_eos)
    torch.testing.assert_close(found, truth.scores(models.reward, sequences), rtol=0, atol=1e-5)


@pytest.mark.item(3, trainer="reward")
@pytest.mark.parametrize("length", [5, 12, 70])
def test_neighbours_change_no_score(backend: Backend, models: Models, length: int) -> None:
    """However far a row is padded."""
    found = backend.scores(models.reward, [TEXT, [9] * length])[:1]
    torch.testing.assert_close(found, truth.scores(models.reward, [TEXT]), rtol=0, atol=1e-5)


@pytest.mark.item(38, trainer="reward")
@pytest.mark.integration
@pytest.mark.parametrize("lora", [None, Lora()], ids=["all weights", "LoRA"])
def test_the_head_survives_saving_and_loading(
    backend: Backend, models: Models, lora: Lora | None, tmp_path: Path
) -> None:
    """A head that is forgotten comes back random, and with it every score."""
    before, after = backend.reward_roundtrip(models, tmp_path, lora)
    assert before.std() > 1e-3
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)


def _eos(models: Models) -> int:
    return id_of(models.tokenizer, EOS)
