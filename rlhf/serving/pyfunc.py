"""What `mlflow.pyfunc.load_model` finds in a registered version: the model's folder as something that predicts."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.serving.assistant import Assistant, Sampling

if TYPE_CHECKING:
    from pandas import DataFrame


class Predictor:
    """Answers each row's prompt."""

    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant

    def predict(self, data: "DataFrame", params: Mapping[str, float | int] | None = None) -> list[str]:
        """Return one response per row of the column `prompt`, in order."""
        given = params or {}
        sampling = Sampling(
            temperature=float(given.get("temperature", 1.0)),
            max_new_tokens=int(given.get("max_new_tokens", 64)),
            seed=int(given.get("seed", 0)),
        )
        return [
            self._assistant.answer([{"role": "user", "content": prompt}], sampling)[0].text
            for prompt in data["prompt"]
        ]


def _load_pyfunc(path: str) -> Predictor:
    return Predictor(Assistant.load(Path(path)))
