import pytest

from rlhf.models.loading import load_policy
from rlhf.training.pretrain import fit, pack
from schemas.config.models import ModelShape, PretrainConfig
from schemas.errors import DataRejected

SHAPE = ModelShape(
    hidden_size=32, num_layers=1, num_heads=2, intermediate_size=32, vocab_size=300, max_positions=64
)


def test_documents_are_packed_end_to_end_with_eos_after_each(tokenizer):
    documents = ["We are open.", "Thank you.", "<|end|>"]
    blocks = pack(tokenizer, documents, 4)
    stream = [token for block in blocks for token in block]
    expected = []
    for text in documents:
        expected += [*tokenizer.encode(text, split_special_tokens=True), tokenizer.eos_token_id]
    assert stream == expected[: len(stream)]
    assert len(expected) - len(stream) < 4
    assert {len(block) for block in blocks} == {4}
    assert expected.count(tokenizer.eos_token_id) == 3  # the text <|end|> is not EOS


def test_a_corpus_smaller_than_a_block_is_refused(tokenizer):
    with pytest.raises(DataRejected, match="block_size"):
        pack(tokenizer, ["Hi"], 64)


@pytest.mark.integration
def test_a_pretrained_base_has_learnt_its_corpus_and_is_ready_for_chat(fp32, tmp_path):
    steps = []
    config = PretrainConfig(shape=SHAPE, steps=60, batch_size=4, block_size=16, learning_rate=2e-2)
    texts = ["We are open from nine to five.", "The kettle costs twelve euros."] * 40
    metrics = fit(texts, config, seed=0, precision=fp32, on_step=steps.append, out=tmp_path)
    assert steps[0].metrics["loss"] == pytest.approx(5.7, abs=0.5)  # ln 300
    assert metrics["loss"] < 1.0
    assert steps[0].tokens == 4 * 16
    model, tokenizer = load_policy(tmp_path)
    assert model.config.tie_word_embeddings
    assert len(tokenizer) == model.get_input_embeddings().weight.shape[0] == 300
