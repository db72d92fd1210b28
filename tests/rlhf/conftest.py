"""A tokenizer and a policy small enough to be built anew."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from schemas.config.models import ModelShape

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Heavy imports stay inside the fixtures: tests that need no model do not pay for them.

TEXTS = [
    "When do you open? We are open from nine to five.",
    "What does a kettle cost? The kettle costs twelve euros.",
    "Thank you for asking. The user said that the assistant was kind.",
]


@pytest.fixture(scope="session")
def tokenizer() -> "PreTrainedTokenizerFast":
    from rlhf.models.bpe import train_tokenizer

    return train_tokenizer(TEXTS, ModelShape(vocab_size=320))


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory, tokenizer: "PreTrainedTokenizerFast") -> Path:
    """A folder with an untrained two-layer Llama; its output is sharpened, so that responses differ clearly."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlhf.models.loading import save_model

    folder = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=320,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=48,
            max_position_embeddings=128,
            initializer_range=0.2,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    save_model(model, tokenizer, folder)
    return folder
