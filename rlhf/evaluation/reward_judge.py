"""A reward model as the judge; apart from the others, which need no torch."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch

from rlhf.data.chat import encode_prompt, encode_response
from rlhf.evaluation.judges import compare
from rlhf.models.loading import load_tokenizer
from rlhf.models.precision import Precision, autocast
from rlhf.models.reward import RewardModel


class RewardJudge:
    """A reward model that reads the text as it was trained to: of another tokenizer than the policies', if need be."""

    def __init__(self, folder: Path, precision: Precision, *, batch_size: int) -> None:
        self._model, self._tokenizer = (
            RewardModel.load(folder, device=precision.device),
            load_tokenizer(folder),
        )
        self._precision = precision
        self._batch_size = batch_size

    def outcomes(self, pairs: pl.DataFrame) -> Sequence[float | None]:
        """Score both sides."""
        return compare(self.scores(pairs), self.scores(pairs, "_baseline"))

    def scores(self, samples: pl.DataFrame, suffix: str = "") -> list[float]:
        """Return the score of each response of a table `samples`."""
        ids = [
            encode_prompt(self._tokenizer, prompt)
            + encode_response(self._tokenizer, response, finished=finished)
            for prompt, response, finished in samples.select(
                "prompt", f"response{suffix}", f"finished{suffix}"
            ).iter_rows()
        ]
        with torch.no_grad(), autocast(self._precision):
            return [float(score) for score in self._model.normalised_scores(ids, batch_size=self._batch_size)]
