"""The responses that raters rank: how many, from which policy, and where it computes."""

from pathlib import Path

import polars as pl
import pytest
import torch

from rlhf.feedback.candidates import describe, sample
from rlhf.models.precision import Precision
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is not there")
def test_the_policy_is_loaded_on_the_device_of_the_stage(tiny_policy: Path):
    elsewhere = Precision(threads=1, dtype="fp32", device="cuda")
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
        sample(tiny_policy, PROMPTS, CONFIG, seed=0, precision=elsewhere, on_step=lambda _: None)
