"""Small tables and a way to read what a loop reports."""

import polars as pl
import pytest

from rlhf.models.precision import Precision

FP32 = Precision(threads=1, dtype="fp32")


@pytest.fixture
def fp32() -> Precision:
    return FP32


def _prompt(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


@pytest.fixture
def demonstrations() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "prompt": [_prompt("When do you open?"), _prompt("What does a kettle cost?")],
            "response": ["We are open from nine to five.", "The kettle costs twelve euros."],
        }
    )


@pytest.fixture
def preferences() -> pl.DataFrame:
    """Twenty prompts; the polite answer is always chosen."""
    return pl.DataFrame(
        [
            {
                "prompt_id": f"{number:02d}",
                "prompt": _prompt(f"What does kettle {number} cost?"),
                "chosen": "Thank you for asking.",
                "rejected": f"{number} euros",
                "margin": None,
                "weight": 1.0,
            }
            for number in range(20)
        ],
        schema_overrides={"margin": pl.Float64},
    )


@pytest.fixture
def candidates(preferences: pl.DataFrame) -> pl.DataFrame:
    return preferences.select(
        "prompt_id",
        "prompt",
        pl.concat_list("chosen", "rejected").alias("responses"),
        pl.lit([5, 3]).alias("tokens"),
        pl.lit([True, True]).alias("finished"),
    )
