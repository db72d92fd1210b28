"""Small tables, and small models that have something to say about each other."""

from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlhf.models.bpe import train_tokenizer
from rlhf.models.loading import save_model
from rlhf.models.precision import Precision
from rlhf.models.reward import RewardModel
from schemas.config import ModelShape

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
                "chosen_finished": True,
                "rejected_finished": True,
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


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An SFT policy and a reward model that was made from another one."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(["hi hi hi", "there"], ModelShape(vocab_size=300))
    for name, seed in (("sft", 0), ("other", 1)):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=128, initializer_range=0.3, bos_token_id=None,
            eos_token_id=1, pad_token_id=0, tie_word_embeddings=True,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        # Many ids end a response, so that random ones differ in length.
        model.generation_config.eos_token_id = [1, *range(100, 180)]
        save_model(model, tokenizer, root / name)
    reward = RewardModel.from_policy(root / "other", seed=0)
    reward.set_normalisation(mean=0.7, std=1.3)
    reward.save(root / "reward")
    tokenizer.save_pretrained(root / "reward")
    return root / "sft", root / "reward"
