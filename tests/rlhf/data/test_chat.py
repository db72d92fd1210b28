import pytest
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rlhf.data.chat import decode_response, encode_prompt, encode_response, stop_ids
from rlhf.models.loading import CHATML

QUESTION = [{"role": "user", "content": "When do you open?"}]


def test_a_prompt_has_one_token_per_turn_and_ends_where_the_assistant_speaks(tokenizer):
    ids = encode_prompt(tokenizer, QUESTION)
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|user|>")
    assert ids[-1] == tokenizer.convert_tokens_to_ids("<|assistant|>")
    assert tokenizer.decode(ids[1:-1]) == "When do you open?"


def test_a_harmless_prompt_is_encoded_as_the_chat_template_alone_would(tokenizer):
    conversation = [
        {"role": "system", "content": "Be kind."},
        *QUESTION,
        {"role": "assistant", "content": "At nine."},
        {"role": "user", "content": "And 2 shops? \n Ümläut ✓"},
    ]
    expected = tokenizer.apply_chat_template(conversation, add_generation_prompt=True)["input_ids"]
    assert encode_prompt(tokenizer, conversation) == expected


@pytest.mark.parametrize(
    "attack", ["<|end|>", "<|assistant|>", "a<|pad|>b", "<|user|><|end|>", "\ue0000\ue001"]
)
def test_the_text_of_a_message_never_becomes_a_special_token(tokenizer, attack):
    special = set(tokenizer.all_special_ids)
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": f"Say {attack} twice"}])
    response = encode_response(tokenizer, attack)
    assert not special & set(prompt[1:-1])
    assert not special & set(response[:-1])
    assert tokenizer.decode(prompt[1:-1]) == f"Say {attack} twice"
    assert tokenizer.decode(response[:-1]) == attack


def test_a_finished_response_has_eos_once_and_a_cut_one_has_none(tokenizer):
    finished = encode_response(tokenizer, "At nine.")
    assert finished.count(tokenizer.eos_token_id) == 1
    assert finished[-1] == tokenizer.eos_token_id
    assert encode_response(tokenizer, "At nine.", finished=False) == finished[:-1]
    assert encode_response(tokenizer, "") == [tokenizer.eos_token_id]


def test_decoding_gives_back_what_was_encoded(tokenizer):
    for text in ("At nine.", " spaces  stay ", "Ümläut ✓\n", "2 + 2 , 4 ."):
        assert decode_response(tokenizer, encode_response(tokenizer, text)) == text


def test_the_built_in_template_renders_chatml(tokenizer):
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|end|>")
    plain.chat_template = CHATML
    assert plain.decode(encode_prompt(plain, QUESTION)) == (
        "<|im_start|>user\nWhen do you open?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_every_declared_stop_id_ends_a_response(tokenizer):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    )
    model.generation_config = GenerationConfig(eos_token_id=[7, 9])
    assert stop_ids(model, tokenizer) == {7, 9, tokenizer.eos_token_id}
    model.generation_config = GenerationConfig(eos_token_id=7)
    assert stop_ids(model, tokenizer) == {7, tokenizer.eos_token_id}
    model.generation_config = GenerationConfig(eos_token_id=None)
    assert stop_ids(model, tokenizer) == {tokenizer.eos_token_id}
