"""Best-of-n: draw n responses to each prompt and take the one that the reward model scores highest.

On disk such a policy is no model of its own: a folder with `policy/`, `reward/` and `best_of_n.json`.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rlhf.data.chat import stop_ids
from rlhf.models.loading import BEST_OF_N
from rlhf.models.precision import Precision, autocast
from rlhf.models.rendering import Renderer
from rlhf.models.reward import RewardModel
from rlhf.models.sampling import Completion, sample
from schemas.config.reward import EnsembleScoring

POLICY, REWARD = "policy", "reward"


@dataclass(frozen=True, slots=True)
class Group:
    """The responses to one prompt."""

    completions: list[Completion]
    scores: list[float]
    """Normalised score of each."""

    @property
    def best(self) -> int:
        """Index of the response with the highest score; of several the first."""
        return self.scores.index(max(self.scores))


@dataclass(frozen=True, slots=True)
class Chooser:
    """A policy, and the reward model that chooses among its responses; both in evaluation mode."""

    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    reward_model: RewardModel
    renderer: Renderer
    n: int

    @classmethod
    def beside(
        cls,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        reward: Path,
        *,
        n: int,
        scoring: EnsembleScoring,
        device: str = "cpu",
    ) -> Self:
        """Load the reward model that is to choose for a policy."""
        reward_model = RewardModel.load(reward, device=device, scoring=scoring)
        return cls(policy, tokenizer, reward_model, Renderer.between(tokenizer, reward), n)

    def draw(
        self,
        prompts: Sequence[Sequence[Mapping[str, str]]],
        prompt_ids: Sequence[list[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        batch_size: int,
        precision: Precision,
        generator: torch.Generator,
    ) -> list[Group]:
        """Return n responses to each prompt with their scores; `batch_size` sequences are worked on at a time."""
        pad_id = self.tokenizer.pad_token_id
        assert isinstance(pad_id, int)  # load_policy checks it
        repeated = [ids for ids in prompt_ids for _ in range(self.n)]
        with torch.no_grad(), autocast(precision):
            drawn = sample(
                self.policy,
                repeated,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                stop=stop_ids(self.policy, self.tokenizer),
                pad_id=pad_id,
                batch_size=batch_size,
                generator=generator,
            )
            sequences = self.renderer.sequences(
                [messages for messages in prompts for _ in range(self.n)],
                repeated,
                [completion.ids for completion in drawn],
                [completion.finished for completion in drawn],
            )
            scores = self.reward_model.normalised_scores(sequences, batch_size=batch_size).tolist()
        starts = range(0, len(drawn), self.n)
        return [Group(drawn[at : at + self.n], scores[at : at + self.n]) for at in starts]


@dataclass(frozen=True, slots=True)
class Saved:
    """A best-of-n policy on disk."""

    policy: Path
    reward: Path
    n: int
    scoring: EnsembleScoring

    def load(
        self, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, device: str = "cpu"
    ) -> Chooser:
        """Load the reward model beside its policy."""
        return Chooser.beside(policy, tokenizer, self.reward, n=self.n, scoring=self.scoring, device=device)


def save(policy: Path, reward: Path, out: Path, *, n: int, scoring: EnsembleScoring) -> None:
    """Write both models' folders side by side, with the number that is drawn."""
    shutil.copytree(policy, out / POLICY)
    shutil.copytree(reward, out / REWARD)
    settings = {"n": n, "scoring": scoring.model_dump()}
    (out / BEST_OF_N).write_text(json.dumps(settings, indent=2), encoding="utf-8")


def saved(folder: Path) -> Saved | None:
    """Return the best-of-n policy in a folder; None where there is another kind of model."""
    path = folder / BEST_OF_N
    if not path.is_file():
        return None
    settings = json.loads(path.read_text(encoding="utf-8"))
    return Saved(folder / POLICY, folder / REWARD, int(settings["n"]), EnsembleScoring(**settings["scoring"]))
