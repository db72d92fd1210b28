"""The responses that raters rank: how many, from which policy, and where it computes."""

from pathlib import Path

import polars as pl
import pytest
import torch

from rlhf.feedback.candidates import describe, sample, sample_in_turn
from rlhf.models.precision import Precision
from rlhf.training.step import StepMetrics
from schemas.config import SampleConfig
from schemas.tables import polars_schema

CONFIG = SampleConfig(num_prompts=3, num_responses=2, max_new_tokens=5, batch_size=4)
PROMPTS = pl.DataFrame(
    {
        "prompt_id": ["a", "b", "c"],
        "prompt": [[{"role": "user", "content": text}] for text in ("Hi?", "When?", "What?")],
    }
)


def test_each_prompt_gets_its_responses_and_each_step_is_told(tiny_policy: Path):
    steps = []
    found = sample(
        tiny_policy,
        PROMPTS,
        CONFIG,
        seed=0,
        precision=Precision(threads=1, dtype="fp32"),
        on_step=steps.append,
    )
    assert found.schema == polars_schema("candidates")
    assert found["prompt_id"].to_list() == ["a", "b", "c"]
    assert found["responses"].list.len().to_list() == [2, 2, 2]
    assert [(step.step, step.total) for step in steps] == [(2, 3), (3, 3)]
    assert sum(step.tokens for step in steps) == found["tokens"].list.sum().sum()
    assert describe(found)["responses"] == 6


@pytest.fixture(scope="module")
def other_policy(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with another head, so that it says other things."""
    from rlhf.models.loading import load_policy, save_model

    model, tokenizer = load_policy(tiny_policy)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.5)
    folder = tmp_path_factory.mktemp("other")
    save_model(model, tokenizer, folder)
    return folder


@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_the_policies_answer_in_turn(tiny_policy: Path, other_policy: Path, wanted: int):
    config = CONFIG.model_copy(update={"num_responses": wanted})
    settings = {"seed": 0, "precision": Precision(threads=1, dtype="fp32")}
    steps: list[StepMetrics] = []
    found = sample_in_turn([tiny_policy, other_policy], PROMPTS, config, on_step=steps.append, **settings)
    assert found.schema == polars_schema("candidates")
    each = config.model_copy(update={"num_responses": (wanted + 1) // 2})
    alone = [
        sample(policy, PROMPTS, each, on_step=lambda _: None, **settings)["responses"].to_list()
        for policy in (tiny_policy, other_policy)
    ]
    assert not {text for row in alone[0] for text in row} & {text for row in alone[1] for text in row}
    # Prompt i begins with policy i mod 2, and each policy's samples come in their order.
    a, b = alone
    expected = [
        [a[0], b[0]],
        [b[1], a[1]],
        [a[2], b[2]],
    ]
    for row, (first, second) in enumerate(expected):
        turns = [(first if turn % 2 == 0 else second)[turn // 2] for turn in range(wanted)]
        assert found["responses"][row].to_list() == turns
    assert steps[-1].step == steps[-1].total == 2 * PROMPTS.height
    assert [step.step for step in steps] == sorted(step.step for step in steps)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is not there")
def test_the_policy_is_loaded_on_the_device_of_the_stage(tiny_policy: Path):
    elsewhere = Precision(threads=1, dtype="fp32", device="cuda")
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
        sample(tiny_policy, PROMPTS, CONFIG, seed=0, precision=elsewhere, on_step=lambda _: None)
