"""Reward models that other programs have trained: any sequence-classification model with one output, in a folder.

Shapes: B sequences.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from rlhf.models.loading import load_tokenizer, load_weights
from rlhf.models.reward import RewardModel
from schemas.errors import ModelNotUsable

Messages = Sequence[Mapping[str, str]]
Encoding = dict[str, list[int]]
"""Input ids, and whatever else the tokenizer gives such a model (token types)."""


class ForeignRewardModel:
    """Renders conversations as the model's own tokenizer does, and scores them."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._decoder = RewardModel(model) if isinstance(getattr(model, "score", None), nn.Linear) else None
        """Decoders are read at the last token as told by the length: their own code searches for the padding by id."""

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "ForeignRewardModel":
        """Load a model in fp32, for evaluation; raises ModelNotUsable unless it has exactly one output."""
        model = load_weights(folder, device, AutoModelForSequenceClassification, attention="eager")
        if model.config.num_labels != 1:
            raise ModelNotUsable(
                f"{folder} has {model.config.num_labels} outputs; wanted a reward model with one (num_labels=1)."
            )
        return cls(model, load_tokenizer(folder))

    def encode(self, prompt: Messages, response: str, *, max_length: int) -> Encoding:
        """Render by the chat template or, without one, as a pair of texts (the turns of the prompt, the response)."""
        if self.tokenizer.chat_template:
            turns = [*map(dict, prompt), {"role": "assistant", "content": response}]
            ids = self.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
            return {"input_ids": list(ids)[:max_length]}
        said = "\n\n".join(turn["content"] for turn in prompt)
        found = self.tokenizer(said, response, truncation=True, max_length=max_length)
        return {name: list(values) for name, values in found.items() if name != "attention_mask"}

    @torch.no_grad()
    def raw_scores(self, encodings: Sequence[Encoding], *, batch_size: int) -> Tensor:
        """Return one score per sequence (B,); only rows of one length share a batch, so that nothing is padded."""
        if self._decoder:
            return self._decoder.raw_scores(
                [found["input_ids"] for found in encodings], batch_size=batch_size
            )
        scores_B = torch.empty(len(encodings))

        def length(row: int) -> int:
            return len(encodings[row]["input_ids"])

        for _, group in groupby(sorted(range(len(encodings)), key=length), key=length):
            alike = list(group)
            for start in range(0, len(alike), batch_size):
                rows = alike[start : start + batch_size]
                inputs = {
                    name: torch.tensor([encodings[row][name] for row in rows], device=self.model.device)
                    for name in encodings[rows[0]]
                }
                scores_B[rows] = self.model(**inputs).logits[:, 0].float().cpu()
        return scores_B
