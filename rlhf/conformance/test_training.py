"""Whole training steps, watched from the optimizer's side: gradients before a step, weights after the last."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import AutoModelForCausalLM

from rlhf.conformance.backend import Backend, Models
from rlhf.conformance.models import ANSWERS, EOS, QUESTIONS, id_of, ids_asked

pytestmark = pytest.mark.integration


@contextmanager
def _gradients() -> Iterator[list[Tensor]]:
    """Yield a list that fills with the gradient of each optimizer step, flat."""
    seen: list[Tensor] = []

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parts = [
            parameter.grad.flatten().clone()
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        seen.append(torch.cat(parts))

    handle = register_optimizer_step_pre_hook(look)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.item(35)
def test_micro_batches_change_no_gradient(
    backend: Backend, models: Models, trainer: str, tmp_path: Path
) -> None:
    """Rows are ragged: the mean of the micro-batches' means is not the mean."""
    found = []
    for size in (8, 2):
        with _gradients() as seen:
            backend.train(
                trainer, models, tmp_path, steps=1, batch_size=8, micro_batch_size=size, max_grad_norm=1e9
            )
        found.append(torch.cat(seen))
    assert found[0].norm() > 0
    assert (found[0] - found[1]).norm() / found[0].norm() < 1e-4


@pytest.mark.item(41)
def test_gradients_are_clipped_before_the_step(
    backend: Backend, models: Models, trainer: str, tmp_path: Path
) -> None:
    """Adam hides the scale of a step, so it is the gradient that is looked at."""
    with _gradients() as seen:
        backend.train(
            trainer, models, tmp_path, steps=2, batch_size=8, micro_batch_size=8, max_grad_norm=1e-3
        )
    assert max(float(gradient.norm()) for gradient in seen) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.item(45)
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    backend: Backend, models: Models, trainer: str, tmp_path: Path
) -> None:
    """Weights, optimizer, schedule, random numbers and data go on where they were."""
    backend.resume(trainer, models, tmp_path / "whole", steps=2, stop_after=None)
    backend.resume(trainer, models, tmp_path / "resumed", steps=2, stop_after=1)
    whole, resumed = (
        load_file(next((tmp_path / name).glob("*.safetensors"))) for name in ("whole", "resumed")
    )
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.item(8, trainer="sft")
def test_a_policy_that_has_learnt_its_answers_stops_by_itself(
    backend: Backend, models: Models, tmp_path: Path
) -> None:
    """Greedily, after the answer and not at the limit."""
    if "sft" not in backend.trainers:
        pytest.skip("not offered")
    backend.train("sft", models, tmp_path, steps=80, batch_size=8, micro_batch_size=8, learning_rate=2e-2)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    asked, end = ids_asked(models.tokenizer, QUESTIONS[0]), id_of(models.tokenizer, EOS)
    greedily = {"do_sample": False, "repetition_penalty": 1.0, "top_k": None, "top_p": None}
    said = model.generate(torch.tensor([asked]), max_new_tokens=30, eos_token_id=end, **greedily)[0].tolist()
    assert said[len(asked) :] == [*models.tokenizer.encode(ANSWERS[0], add_special_tokens=False), end]
