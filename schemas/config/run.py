"""The root of the tree: one pipeline run."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.config.aligners import AlignerConfig, BestOfNConfig, DPOConfig, KTOConfig, PPOConfig
from schemas.config.aligners.dpo import PairUse
from schemas.config.cost import CostConfig
from schemas.config.data import DataConfig, FilesData, HelpdeskData
from schemas.config.evaluation import EvaluateConfig, GateConfig
from schemas.config.labelling import LabellingConfig
from schemas.config.models import BaseModelConfig, PretrainConfig
from schemas.config.preferences import PreferencesConfig, SampleConfig
from schemas.config.reward import RewardConfig
from schemas.config.section import Section
from schemas.config.supervised import SFTConfig
from schemas.config.tuning import TuningSection


class PlaceConfig(Section):
    """Where a stage is computed; its result is the same up to rounding, and is re-used wherever it was computed."""

    place: Literal["inline", "launch", "pool"] = "inline"
    """`launch`: by processes of `accelerate launch`, which share each batch. `pool`: by a worker of another pool."""
    processes: int = Field(1, ge=1)
    """Of accelerate, on this machine or the worker's."""
    deployment: str = "rlhf-stage/stage"
    """For `pool`: the deployment of the flow that computes one stage; its work pool is where the worker is."""
    accelerate: str | None = None
    """A configuration file of accelerate; without one, data parallelism on this machine."""

    @model_validator(mode="after")
    def _several_are_launched(self) -> Self:
        if self.place == "inline" and (self.processes > 1 or self.accelerate):
            raise ValueError(
                f"processes={self.processes} and accelerate={self.accelerate} need place=launch or pool; set it, or leave them out"
            )
        return self


class ComputeConfig(Section):
    """Device, threads and number type; `auto` measures and records its choice."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Literal["auto"] | int = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 means autocast: weights, optimizer state, losses and attention stay fp32 on CPU."""
    stages: dict[str, PlaceConfig] = Field(default_factory=dict)
    """Where stages that train are computed, by name: pretrain, sft, reward, judge, or an aligner's; others run inline."""


STAGES = (
    "validate", "pretrain", "sft", "sample", "select", "preferences", "reward-base", "reward", "probe", "reference", "judge",
    "evaluate", "gate", "register", "report",
)  # fmt: skip
"""Names that an aligner may not take."""


def of_round(name: str, number: int) -> str:
    """Return what a stage or policy is called in a round: the first round's have their plain names."""
    return name if number == 1 else f"{name}-{number}"


class RunConfig(Section):
    """Everything that decides what a pipeline run does; secrets and endpoints come from the environment."""

    name: str = Field("helpdesk", pattern=r"^[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*$")
    """The recipe's name, the MLflow experiment's and the registered model's."""
    seed: int = Field(0, ge=0, lt=2**31)
    compute: ComputeConfig = ComputeConfig()
    data: DataConfig = HelpdeskData()
    base: BaseModelConfig | None = None
    """An existing model to start from; without it the base is pre-trained from the corpus."""
    pretrain: PretrainConfig = PretrainConfig()
    sft: SFTConfig = SFTConfig()
    sample: SampleConfig = SampleConfig()
    preferences: PreferencesConfig = PreferencesConfig()
    reward: RewardConfig = RewardConfig()
    aligners: tuple[AlignerConfig, ...] = Field((PPOConfig(), DPOConfig()), min_length=1)
    """Compared in one table; each becomes a version of the registered model."""
    labelling: LabellingConfig = LabellingConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    cost: CostConfig = CostConfig()

    @property
    def reference_uses(self) -> tuple[PairUse, ...]:
        """The pairs that aligners compare with what the SFT policy says of them.

        A base of 4 bits says something else than the policy that it was made from, so its trainer asks it itself.
        """
        asking = [one for one in self.aligners if isinstance(one, DPOConfig) and not one.load_in_4bit]
        uses = {(one.max_length, one.batch_size, one.steps) for one in asking}
        return tuple(
            PairUse(max_length=length, batch_size=size, steps=steps) for length, size, steps in sorted(uses)
        )

    @model_validator(mode="after")
    def _aligner_names_differ(self) -> Self:
        names = [aligner.name for aligner in self.aligners]
        if len(set(names)) < len(names):
            raise ValueError(f"aligners have the names {names}; give each a `name` of its own")
        if taken := sorted(set(names) & {*STAGES, *type(self).model_fields, "champion"}):
            raise ValueError(
                f"an aligner is called {taken[0]!r}, which is a stage or section; choose another name"
            )
        later = {of_round(name, number) for name in names for number in range(2, self.labelling.rounds + 1)}
        if clash := sorted(set(names) & later):
            raise ValueError(
                f"an aligner is called {clash[0]!r}, as another one will be in a later round; choose another name"
            )
        return self

    @model_validator(mode="after")
    def _placed_stages_train(self) -> Self:
        trains = {"pretrain", "sft", "reward", "judge", *(aligner.name for aligner in self.aligners)}
        if unknown := sorted(set(self.compute.stages) - trains):
            raise ValueError(
                f"compute.stages names {unknown[0]!r}; wanted one of {', '.join(sorted(trains))}, which train"
            )
        return self

    @model_validator(mode="after")
    def _somebody_ranks_each_round(self) -> Self:
        if self.labelling.rounds > 1 and self.preferences.source == "files":
            raise ValueError(
                "labelling.rounds is more than 1, but preferences.source=files ranks no new responses; use people"
            )
        if self.labelling.select == "disagreement" and self.reward.ensemble is None:
            raise ValueError(
                "labelling.select=disagreement needs several reward models; set reward.ensemble, such as reward.ensemble.size=4"
            )
        return self

    @model_validator(mode="after")
    def _aligners_have_what_they_need(self) -> Self:
        for aligner in self.aligners:
            if isinstance(aligner, BestOfNConfig) and self.labelling.rounds > 1:
                raise ValueError(
                    f"labelling.rounds={self.labelling.rounds} ranks what the aligners say, and {aligner.name} (best_of_n) says "
                    "nothing that the SFT policy does not; leave it out, or use one round"
                )
            raw = (
                isinstance(aligner, PPOConfig) and aligner.ptx is not None and aligner.ptx.source == "corpus"
            )
            if raw and isinstance(self.data, FilesData) and not self.data.corpus:
                raise ValueError(
                    f"{aligner.name}.ptx.source=corpus but data.corpus names no file; name one, or use demonstrations"
                )
        return self

    @model_validator(mode="after")
    def _the_judge_has_preferences_of_its_own(self) -> Self:
        wanted, given = self.evaluate.judge == "evaluation_reward", self.preferences.judging_fraction > 0
        if wanted != given:
            raise ValueError(
                f"evaluate.judge={self.evaluate.judge} and preferences.judging_fraction="
                f"{self.preferences.judging_fraction:g}; evaluation_reward needs a share above 0, such as 0.5, and no "
                "other judge does"
            )
        return self

    @model_validator(mode="after")
    def _four_bits_are_for_aligners_on_gpus(self) -> Self:
        for name, section in (("sft", self.sft), ("reward", self.reward)):
            if section.load_in_4bit:
                raise ValueError(
                    f"{name}.load_in_4bit=true: only aligners can have it; set {name}.load_in_4bit=false"
                )
        asked = [
            aligner.name
            for aligner in self.aligners
            if isinstance(aligner, TuningSection) and aligner.load_in_4bit
        ]
        if asked and self.compute.device == "cpu":
            raise ValueError(
                f"{asked[0]}.load_in_4bit=true needs a GPU, and compute.device=cpu; set {asked[0]}.load_in_4bit=false"
            )
        return self

    @model_validator(mode="after")
    def _somebody_said_what_kto_needs(self) -> Self:
        given = isinstance(self.data, FilesData) and self.data.feedback
        for aligner in self.aligners:
            if isinstance(aligner, KTOConfig) and aligner.labels != "preferences" and not given:
                raise ValueError(
                    f"{aligner.name}.labels={aligner.labels} but data.feedback names no file (it needs data.source=files); "
                    "name one, or use labels=preferences"
                )
        return self

    @model_validator(mode="after")
    def _data_provides_what_stages_need(self) -> Self:
        if isinstance(self.data, FilesData):
            if self.base is None and not self.data.corpus:
                raise ValueError("data.corpus is empty and no base is named; name one of the two")
            if not self.data.demonstrations and not self.data.preferences:
                raise ValueError(
                    "data.demonstrations and data.preferences are both empty; sft needs one of them"
                )
            if self.preferences.source == "files" and not self.data.preferences:
                raise ValueError("preferences.source=files but data.preferences names no file")
            if self.preferences.source == "raters":
                raise ValueError(
                    "preferences.source=raters needs data.source=helpdesk; use preferences.source=people or files"
                )
            if self.preferences.gold_questions:
                raise ValueError("preferences.gold_questions needs data.source=helpdesk; leave it at 0")
            if self.evaluate.judge == "utility":
                raise ValueError(
                    "evaluate.judge=utility needs data.source=helpdesk; use evaluation_reward, people, llm or reward"
                )
        elif self.preferences.source == "files":
            raise ValueError("preferences.source=files needs data.source=files")
        return self
