"""What a stage has to know of the pipeline run that it belongs to, and what one round hands on to the next."""

from collections.abc import Sequence

from schemas.config import DataConfig, EvaluateConfig
from schemas.config.run import ComputeConfig, of_round
from schemas.record import Record
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import (
    EvaluationResult,
    HeldOut,
    PolicyResult,
    PreferencesResult,
    RewardResult,
    ValidatedData,
)


class PipelineRun(Record):
    """One execution of the flow; handed to every stage."""

    run_id: str
    """The parent run in MLflow."""
    name: str
    """The recipe's name."""
    token: str = ""
    """Of the process that computes it (`schemas.process`)."""
    seed: int
    compute: ComputeConfig
    fresh: bool = False
    """Compute every stage again, whatever the store holds."""
    until: str | None = None
    """Stop after the stage of this name."""
    round: int | None = None
    """The round that the stages belong to, from 1; None for what belongs to all of them."""

    def rounds(self, number: int) -> tuple["PipelineRun", ...]:
        """Return what each round's stages have to know."""
        return tuple(self.model_copy(update={"round": turn}) for turn in range(1, number + 1))

    def called(self, stage: str) -> str:
        """Return what a stage is called in this round."""
        return of_round(stage, self.round or 1)


class AlignerInputs(Record):
    """Everything that an aligner may learn from; the parameters of its stage name what it takes."""

    sft: ModelRef
    """The policy to start from, and the reference to stay close to."""
    reward: ModelRef
    prompts: DatasetRef
    demonstrations: DatasetRef
    corpus: DatasetRef | None
    """Raw text, where the recipe has some."""
    preferences: DatasetRef
    """Pairs of all rounds so far."""
    rankings: DatasetRef | None
    """What the pairs were derived from; None where they came as pairs."""
    rater_weights: dict[str, float]
    """What a ranking by each rater counts; 1 for a rater who is not here."""
    feedback: DatasetRef | None
    """Single responses that somebody called good or bad."""
    reference: DatasetRef | None
    """What the SFT policy says of the pairs, where an aligner compares with it (table `reference`)."""
    held_out: DatasetRef
    """Pairs of the prompts that the reward model was not trained on."""

    @classmethod
    def gather(
        cls,
        data: ValidatedData,
        sft: ModelRef,
        collected: PreferencesResult,
        reward: RewardResult,
        reference: DatasetRef | None,
    ) -> "AlignerInputs":
        """Return what one round has for its aligners."""
        return cls(
            sft=sft,
            reward=reward.model,
            prompts=data.prompts,
            demonstrations=data.demonstrations,
            corpus=data.corpus,
            preferences=collected.preferences,
            rankings=collected.rankings,
            rater_weights=collected.rater_weights,
            feedback=data.feedback,
            reference=reference,
            held_out=reward.held_out,
        )


class Trial(Record):
    """What every policy is judged by, and against."""

    sft: ModelRef
    reward: ModelRef
    judging: ModelRef | None
    """A reward model for judging alone, where the recipe's judge is one."""
    held_out: HeldOut
    data: DataConfig
    config: EvaluateConfig


class Round(Record):
    """What a finished round hands on to the next."""

    run: PipelineRun
    candidates: DatasetRef
    """What its raters were asked about."""
    preferences: PreferencesResult
    """Of all rounds so far."""
    reward: ModelRef
    policies: dict[str, PolicyResult]
    """By aligner."""
    judged: dict[str, EvaluationResult]
    """By aligner."""


def collected_before(rounds: Sequence[Round]) -> PreferencesResult | None:
    """Return what the finished rounds have collected together; None before the first one ends."""
    return rounds[-1].preferences if rounds else None


def policies_of(rounds: Sequence[Round]) -> dict[str, PolicyResult]:
    """Return the policies of all rounds that can be registered, each by a name of its own; best-of-n has no weights."""
    return {
        one.run.called(name): policy
        for one in rounds
        for name, policy in one.policies.items()
        if policy.model.role == "policy"
    }


def evaluations_of(rounds: Sequence[Round]) -> dict[str, EvaluationResult]:
    """Return the evaluations of the same policies, by the same names."""
    return {
        name: found
        for one in rounds
        for aligner, found in one.judged.items()
        if (name := one.run.called(aligner)) in policies_of([one])
    }
