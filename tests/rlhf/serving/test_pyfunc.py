"""A registered folder is read by other programs: MLflow's pyfunc and transformers' pipeline."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from transformers import pipeline

from rlhf.adapters.flavor import describe_flavor
from rlhf.serving.assistant import Assistant, Sampling

pytestmark = pytest.mark.integration

PROMPTS = ["When do you open?", "What does a kettle cost?"]


def test_pyfunc_says_what_the_assistant_says(folder: Path, assistant: Assistant) -> None:
    describe_flavor(folder)
    described = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    assert described["flavors"]["python_function"]["loader_module"] == "rlhf.serving.pyfunc"
    loaded = mlflow.pyfunc.load_model(str(folder), suppress_warnings=True)
    found = loaded.predict(pd.DataFrame({"prompt": PROMPTS}), params={"seed": 5, "max_new_tokens": 9})
    sampling = Sampling(max_new_tokens=9, seed=5)
    assert found == [
        assistant.answer([{"role": "user", "content": prompt}], sampling)[0].text for prompt in PROMPTS
    ]


def test_a_pipeline_of_transformers_says_the_same_without_randomness(
    folder: Path, assistant: Assistant
) -> None:
    describe_flavor(folder)
    chat = pipeline("text-generation", model=str(folder), device="cpu")
    for prompt in PROMPTS:
        asked = [{"role": "user", "content": prompt}]
        found = chat(asked, max_new_tokens=12, do_sample=False)[0]["generated_text"][-1]["content"]
        ours = assistant.answer(asked, Sampling(temperature=0, max_new_tokens=12))[0].text
        assert found.strip() == ours.strip()
