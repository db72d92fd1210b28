import math
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch

from rlhf.data.chat import encode_prompt
from rlhf.evaluation import forgetting
from rlhf.evaluation.subject import Subject
from rlhf.models.precision import Precision
from schemas.config import EvaluateConfig
from schemas.errors import ModelNotUsable

CONFIG = EvaluateConfig(max_new_tokens=4, batch_size=2, bootstrap_samples=200)
PRECISION = Precision(threads=1, dtype="fp32")
TEXT = pl.DataFrame({"text": ["one", "and another", "x" * 900]})
ASKED = [{"role": "user", "content": "why"}]
DEMONSTRATIONS = pl.DataFrame({"prompt": [ASKED, ASKED], "response": ["so", "because"]})


@pytest.fixture
def subjects(save_policy: Callable[..., Path]) -> tuple[Subject, Subject]:
    return (
        Subject(save_policy("policy", seed=1), CONFIG, PRECISION),
        Subject(save_policy("sft", seed=2), CONFIG, PRECISION),
    )


def nats(subject: Subject, context: list[int], target: list[int]) -> float:
    """One forward per sequence, straight from the logits; the pad id is never predicted."""
    with torch.no_grad():
        logits = subject.model(torch.tensor([context + target])).logits[0, len(context) - 1 : -1]
    logits[:, subject.pad_id] = -torch.inf
    return -float(logits.log_softmax(-1)[range(len(target)), target].sum())


@pytest.mark.integration
def test_perplexities_are_those_of_single_forwards(subjects):
    policy, reference = subjects
    found = forgetting.measure(policy, reference, TEXT, DEMONSTRATIONS, CONFIG, seed=0)
    documents = [([0], [*policy.tokenizer.encode(text), 0][:128]) for text in TEXT["text"]]
    prompt = encode_prompt(policy.tokenizer, ASKED)
    answers = [(prompt, [*policy.tokenizer.encode(text), 0]) for text in DEMONSTRATIONS["response"]]

    def per_token(subject: Subject, pairs: list[tuple[list[int], list[int]]]) -> float:
        return sum(nats(subject, *pair) for pair in pairs) / sum(len(target) for _, target in pairs)

    assert found.perplexity_text.value == pytest.approx(math.exp(per_token(policy, documents)), rel=1e-4)
    assert found.perplexity_demonstrations.value == pytest.approx(
        math.exp(per_token(policy, answers)), rel=1e-4
    )
    together = documents + answers
    tax = per_token(policy, together) - per_token(reference, together)
    assert found.alignment_tax.value == pytest.approx(tax, abs=1e-4)
    assert found.alignment_tax.low < tax < found.alignment_tax.high


@pytest.mark.integration
def test_the_reference_pays_no_tax_and_nothing_held_out_is_nothing_measured(subjects):
    policy, _ = subjects
    found = forgetting.measure(policy, policy, TEXT, None, CONFIG, seed=0)
    assert (found.alignment_tax.low, found.alignment_tax.value, found.alignment_tax.high) == (0.0, 0.0, 0.0)
    assert found.perplexity_demonstrations is None
    assert forgetting.measure(policy, policy, None, None, CONFIG, seed=0) is None


@pytest.mark.integration
def test_policies_with_other_tokens_are_not_compared_token_by_token(subjects):
    policy, reference = subjects
    reference.tokenizer.add_tokens(["<another>"])
    with pytest.raises(ModelNotUsable, match="different vocabularies"):
        policy.require_same_tokens(reference)
