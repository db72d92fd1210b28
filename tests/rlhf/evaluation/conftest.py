"""Tiny random policies and reward models over bytes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from rlhf.models.loading import CHATML


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|eos|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*special, *alphabet])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        additional_special_tokens=special[2:],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=260,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=1,
    )


@pytest.fixture
def save_policy(tmp_path: Path) -> Callable[..., Path]:
    """Saves a random tiny policy; a seed names its weights."""

    def save(name: str, *, seed: int) -> Path:
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config())
        with torch.no_grad():
            model.lm_head.weight.mul_(20)
        model.save_pretrained(tmp_path / name)
        byte_tokenizer().save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def reward_folder(tmp_path: Path) -> Path:
    torch.manual_seed(9)
    shape = config()
    shape.num_labels = 1
    shape.rlhf_score_mean, shape.rlhf_score_std = 0.5, 2.0
    LlamaForSequenceClassification(shape).save_pretrained(tmp_path / "reward")
    byte_tokenizer().save_pretrained(tmp_path / "reward")
    return tmp_path / "reward"


@pytest.fixture
def classifier_folder(tmp_path: Path) -> Path:
    """Saves a classifier whose probabilities are 0.2, 0.3 and 0.5, whatever it reads."""
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=260, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            pad_token_id=1, num_labels=3, id2label={0: "insult", 1: "threat", 2: "fine"},
            label2id={"insult": 0, "threat": 1, "fine": 2},
        )
    )  # fmt: skip
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.2, 0.3, 0.5]).log())
    model.save_pretrained(tmp_path / "classifier")
    byte_tokenizer().save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier"
