import pytest
from transformers import PreTrainedTokenizerFast

from rlhf.data.chat import encode_prompt, encode_response
from rlhf.models.bpe import train_tokenizer
from rlhf.models.rendering import Renderer, same_ids
from schemas.config.models import ModelShape

PROMPTS = [[{"role": "user", "content": "When do you open?"}], [{"role": "user", "content": "Hi"}]]
TEXTS, FINISHED = ["We are open.", "Thank you for"], [True, False]


@pytest.fixture
def other() -> PreTrainedTokenizerFast:
    return train_tokenizer(["other words make other ids " * 5], ModelShape(vocab_size=300))


def _render(policy, reward):
    renderer = Renderer(policy, reward)
    ids = [encode_prompt(policy, prompt) for prompt in PROMPTS]
    responses = [
        encode_response(policy, text, finished=end) for text, end in zip(TEXTS, FINISHED, strict=True)
    ]
    return renderer, ids, responses, renderer.sequences(PROMPTS, ids, responses, FINISHED)


def test_with_one_tokenizer_the_very_ids_are_scored(tokenizer):
    renderer, ids, responses, found = _render(tokenizer, tokenizer)
    assert renderer.shares_ids
    assert found == [prompt + response for prompt, response in zip(ids, responses, strict=True)]
    # ids that no encoding of a text would give stay as they are
    odd = [[70, 70], [71]]
    assert renderer.sequences(PROMPTS, ids, odd, FINISHED) == [ids[0] + odd[0], ids[1] + odd[1]]


def test_with_another_tokenizer_the_text_is_scored_as_its_own_training_rendered_it(tokenizer, other):
    renderer, _, _, found = _render(tokenizer, other)
    assert not renderer.shares_ids
    assert found == [
        encode_prompt(other, prompt) + encode_response(other, text, finished=end)
        for prompt, text, end in zip(PROMPTS, TEXTS, FINISHED, strict=True)
    ]
    assert [ids[-1] == other.eos_token_id for ids in found] == FINISHED


def test_another_template_or_vocabulary_makes_other_ids(tokenizer, other, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert same_ids(tokenizer, again)
    assert not same_ids(tokenizer, other)
    again.chat_template = "{{ messages[0].content }}"
    assert not same_ids(tokenizer, again)
