"""What a reward model reads of a policy's responses: their very ids, or their text where its tokenizer is another."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from rlhf.data.chat import decode_response, encode_prompt, encode_response
from rlhf.models.loading import load_tokenizer

Messages = Sequence[Mapping[str, str]]


class Renderer:
    """Turns a policy's prompts and responses into the sequences that a reward model was trained to read."""

    def __init__(self, policy: PreTrainedTokenizerFast, reward: PreTrainedTokenizerFast) -> None:
        self.policy = policy
        self.reward = reward
        self.shares_ids = same_ids(policy, reward)
        """Sampled ids go to the reward model as they are; a second encoding could give others."""

    @classmethod
    def between(cls, policy: PreTrainedTokenizerFast, reward: Path) -> "Renderer":
        """Read the tokenizer of a saved reward model."""
        return cls(policy, load_tokenizer(reward))

    def sequences(
        self,
        prompts: Sequence[Messages],
        prompt_ids: Sequence[list[int]],
        response_ids: Sequence[list[int]],
        finished: Sequence[bool],
    ) -> list[list[int]]:
        """Return the ids to score, one sequence per response; ids in, as the policy has them."""
        if self.shares_ids:
            return [prompt + response for prompt, response in zip(prompt_ids, response_ids, strict=True)]
        return [
            encode_prompt(self.reward, prompt)
            + encode_response(self.reward, decode_response(self.policy, response), finished=ended)
            for prompt, response, ended in zip(prompts, response_ids, finished, strict=True)
        ]


def same_ids(one: PreTrainedTokenizerFast, other: PreTrainedTokenizerFast) -> bool:
    """Tell whether two tokenizers give every conversation the same ids: vocabulary, rules, template and EOS."""
    return one is other or (
        one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
        and one.chat_template == other.chat_template
        and one.eos_token_id == other.eos_token_id
    )
