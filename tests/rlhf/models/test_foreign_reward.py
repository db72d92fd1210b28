"""Reward models of other origin: scores are those of the plain model on each conversation alone."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from rlhf.models.foreign_reward import ForeignRewardModel
from schemas.errors import ModelNotUsable

PROMPT = [{"role": "user", "content": "when do you open"}]
RESPONSES = ["at nine", "at nine thank you", "we are open from nine to five thank you very much", "no"]
WORDS = sorted({word for text in [PROMPT[0]["content"], *RESPONSES] for word in text.split()})


@pytest.fixture
def encoder(tmp_path):
    """A BERT that reads question and answer as two texts."""
    vocabulary = {name: place for place, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path, model, tokenizer


@torch.no_grad()
def test_an_encoder_without_a_template_reads_a_pair_of_texts_and_no_padding(encoder):
    folder, model, tokenizer = encoder
    found = ForeignRewardModel.load(folder)
    encodings = [found.encode(PROMPT, response, max_length=64) for response in RESPONSES]
    expected = [
        model(**tokenizer(PROMPT[0]["content"], response, return_tensors="pt")).logits.item()
        for response in RESPONSES
    ]
    assert 1 in encodings[0]["token_type_ids"]
    assert found.raw_scores(encodings, batch_size=3).tolist() == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_a_decoder_is_read_at_its_last_token_though_it_pads_with_eos(tokenizer, tmp_path):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_labels=1, initializer_range=0.5, pad_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = ForeignRewardModel.load(tmp_path)
    encodings = [found.encode(PROMPT, response, max_length=64) for response in RESPONSES]
    assert encodings[0]["input_ids"] == tokenizer.apply_chat_template(
        [*PROMPT, {"role": "assistant", "content": RESPONSES[0]}], return_dict=False
    )
    expected = [
        model.score(model.model(torch.tensor([ids["input_ids"]])).last_hidden_state[0, -1]).item()
        for ids in encodings
    ]
    assert found.raw_scores(encodings, batch_size=4).tolist() == pytest.approx(expected, abs=1e-5)


def test_a_classifier_of_several_classes_is_refused(tmp_path):
    BertForSequenceClassification(
        BertConfig(
            vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
    ).save_pretrained(tmp_path)
    with pytest.raises(ModelNotUsable, match="2 outputs"):
        ForeignRewardModel.load(tmp_path)
