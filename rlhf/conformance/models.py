"""Tiny models and data for the suite: random weights from a configuration, no network, ragged lengths everywhere."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as vocabularies
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from rlhf.conformance.backend import Messages, Models

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PAD, EOS, BOS = "<|pad|>", "<|im_end|>", "<|bos|>"
STOP = range(150, 230)
"""Further ids that end a response, as the generation config says: random responses differ in length."""


def ask(question: str) -> Messages:
    """Return a conversation that waits for its answer."""
    return [{"role": "user", "content": question}]


QUESTIONS = [ask("hi " * number + "there?") for number in range(1, 9)]
ANSWERS = ["we open at nine" + " and close at five" * (number % 4) for number in range(8)]
WORSE = ["go away" + ", please" * (number % 3) for number in range(8)]


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE with ChatML's template; texts can be spelt in more than one way."""
    model = Tokenizer(vocabularies.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[PAD, EOS, "<|im_start|>", BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [turn["content"] for turn in (turn for question in QUESTIONS for turn in question)]
    model.train_from_iterator([*texts, *ANSWERS, *WORSE, *["a\n\n"] * 9], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )


def ids_asked(words: PreTrainedTokenizerFast, messages: Messages) -> list[int]:
    """Return what a policy reads when it is to answer."""
    found: Any = words.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    return list(found["input_ids"])


def id_of(words: PreTrainedTokenizerFast, token: str) -> int:
    """Return the id of one token."""
    found = words.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def with_bos() -> PreTrainedTokenizerFast:
    """Return a tokenizer that adds BOS to every text, with a template that writes one too."""
    words = tokenizer()
    words.bos_token = BOS
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, id_of(words, BOS))]
    )
    words.chat_template = "{{ bos_token }}" + CHATML
    return words


def build(root: Path) -> Models:
    """Write the models and their tokenizer below a folder."""
    words = tokenizer()
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.4,
    }
    shared: dict[str, Any] = {
        "vocab_size": len(words),
        "bos_token_id": None,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    llama = LlamaConfig(**shape, **shared, attention_bias=True)
    gpt2 = GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=256, initializer_range=0.4,
        embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0, **shared,
    )  # fmt: skip
    models: dict[str, PreTrainedModel] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models["policy"] = LlamaForCausalLM(llama)
        models["learned_positions"] = GPT2LMHeadModel(gpt2)
        models["reward"] = LlamaForSequenceClassification(LlamaConfig(**shape, **shared | {"num_labels": 1}))
    for name, model in models.items():
        if model.can_generate():
            assert model.generation_config is not None
            model.generation_config.eos_token_id = [words.eos_token_id, *STOP]
            # What a published model may recommend for chatting; training that samples by it learns from another policy.
            model.generation_config.update(do_sample=True, top_k=5, top_p=0.8, repetition_penalty=1.3)
        model.save_pretrained(root / name)
        words.save_pretrained(root / name)
    return Models(tokenizer=words, **{name: root / name for name in models})
