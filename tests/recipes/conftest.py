"""Models as the recipes for real ones expect them, with random weights at toy width, and their tokenizers' own oddities."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as vocabularies
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
}


def _tokenizer(special: list[str], **options: str | None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(vocabularies.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["What does a kettle cost? The kettle costs twelve euros."], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


def _qwen2(folder: Path) -> None:
    """Qwen2.5: a chat template, and EOS as its pad token; keys and values have fewer heads."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>"]
    words = _tokenizer(special, eos_token="<|endoftext|>", pad_token="<|endoftext|>", chat_template=CHATML)
    config = Qwen2Config(**_SHAPE, **_ids(words), num_key_value_heads=2, tie_word_embeddings=True)
    _save(Qwen2ForCausalLM(config), words, folder)


def _llama3(folder: Path) -> None:
    """Llama 3: neither a chat template nor a pad token, but the tokens for both."""
    special = [
        "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|start_header_id|>",
        "<|end_header_id|>", "<|eot_id|>",
    ]  # fmt: skip
    words = _tokenizer(special, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")
    config = LlamaConfig(**_SHAPE, **_ids(words), num_key_value_heads=2, rope_theta=500_000.0)
    _save(LlamaForCausalLM(config), words, folder)


def _pythia(folder: Path) -> None:
    """Pythia: GPT-NeoX, without template; its padding token is not declared as one."""
    words = _tokenizer(["<|endoftext|>", "<|padding|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    _save(GPTNeoXForCausalLM(GPTNeoXConfig(**_SHAPE, **_ids(words))), words, folder)


def _ids(words: PreTrainedTokenizerFast) -> dict[str, int | None]:
    return {"vocab_size": len(words), "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}


def _save(model: torch.nn.Module, words: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    words.save_pretrained(folder)


@pytest.fixture
def base(name: str, tmp_path: Path) -> Path:
    """A folder with a narrow random model of the architecture that the recipe `name` starts from."""
    folder = tmp_path / "base"
    {"qwen2.5-0.5b": _qwen2, "instructgpt": _pythia}.get(name, _llama3)(folder)
    return folder
