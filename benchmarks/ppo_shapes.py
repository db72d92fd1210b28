"""What both sides of `benchmarks/ppo.py` share: shapes, seeds and models, by torch and transformers."""

import math
import os

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedModel

PAD, EOS, BOS = 0, 1, 2
FIRST_WORD = 5
"""Smaller ids never occur in a prompt."""
BATCH, EPOCHS, MINIBATCHES = 64, 4, 4
SIZES = {
    "learner": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": 128,
    },
    "tiny": {
        "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 6,
        "vocab_size": 2048,
    },
    "small": {
        "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8,
        "vocab_size": 8192,
    },
}  # fmt: skip
LENGTHS = {"learner": (8, 16), "tiny": (32, 64), "small": (32, 64)}
"""Tokens of a prompt, and of a response at most."""
LEARNING_RATES = {"learner": 1e-3, "tiny": 1e-5, "small": 1e-5}
KL_COEF = 0.05
VALUE_COEF = 0.1


def use_one_thread() -> None:
    """Compute in one thread, and ask no network for anything."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)


def make_policy(size: str, regime: str, *, seed: int, attention: str = "sdpa") -> LlamaForCausalLM:
    """Return a policy whose EOS logit has a bias: lengths are geometric with mean 24 (`geo`), or all full."""
    torch.manual_seed(seed)
    shape = _config(size, attention)
    policy = LlamaForCausalLM(shape).eval()
    bias = torch.zeros(shape.vocab_size)
    bias[EOS] = math.log(shape.vocab_size / 23) if regime == "geo" else -30.0
    bias[PAD] = -30.0
    head = torch.nn.Linear(shape.hidden_size, shape.vocab_size)
    head.weight = policy.get_input_embeddings().weight
    head.bias = torch.nn.Parameter(bias, requires_grad=False)
    policy.lm_head = head
    return policy


def make_scorer(size: str, *, seed: int, attention: str = "sdpa") -> PreTrainedModel:
    """Return a reward model with random weights whose scores of random sequences have deviation 1."""
    torch.manual_seed(1000 + seed)
    shape = _config(size, attention)
    shape.num_labels = 1
    scorer = LlamaForSequenceClassification(shape).eval()
    prompt, response = LENGTHS[size]
    sequences = torch.randint(FIRST_WORD, shape.vocab_size, (256, prompt + response))
    with torch.no_grad():
        scores = torch.cat([scorer(part).logits for part in sequences.split(32)])
        scorer.score.weight /= scores.std()
    return scorer


def make_prompts(size: str, *, count: int, seed: int) -> list[list[int]]:
    """Return token ids of prompts."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, LENGTHS[size][0])
    ids: list[list[int]] = torch.randint(
        FIRST_WORD, SIZES[size]["vocab_size"], shape, generator=generator
    ).tolist()
    return ids


def _config(size: str, attention: str) -> LlamaConfig:
    return LlamaConfig(
        **SIZES[size], max_position_embeddings=512, tie_word_embeddings=True, pad_token_id=PAD,
        eos_token_id=EOS, bos_token_id=BOS, attn_implementation=attention,
    )  # fmt: skip
