"""Frozen records of what a run measured and decided. Stages return these; pages and JSON show them."""

from typing import Literal

from pydantic import Field, JsonValue

from schemas.evaluation import CurvePoint, PolicyEvaluation
from schemas.record import Interval, Record
from schemas.refs import DatasetRef, FileRef, ModelRef, Ref
from schemas.reward_quality import RewardQuality
from schemas.validation import TokenCheck, ValidationReport


class StageResult(Record):
    """What a stage hands on: refs (fields of the subclasses) and the numbers worth comparing."""

    metrics: dict[str, float] = Field(default_factory=dict)
    files: tuple[FileRef, ...] = ()
    """Files from outside of the store that were read."""

    def refs(self) -> dict[str, Ref]:
        """Return the refs among the fields, by field name; absent ones are left out."""
        return {
            name: value for name in type(self).model_fields if isinstance(value := getattr(self, name), Ref)
        }


class HeldOut(StageResult):
    """What only evaluation reads; absent tables are not measured on."""

    prompts: DatasetRef
    text: DatasetRef | None = None
    demonstrations: DatasetRef | None = None
    red_team: DatasetRef | None = None
    benign: DatasetRef | None = None


class ValidatedData(StageResult):
    """Canonical tables. Prompts of `held_out` occur in no training table."""

    corpus: DatasetRef | None = None
    demonstrations: DatasetRef
    prompts: DatasetRef
    held_out: DatasetRef
    preferences: DatasetRef | None = None
    feedback: DatasetRef | None = None
    """Single responses that somebody called good or bad."""
    held_out_text: DatasetRef | None = None
    """Raw documents that no stage trains on."""
    held_out_demonstrations: DatasetRef | None = None
    red_team: DatasetRef | None = None
    """Prompts that ask for harm."""
    benign: DatasetRef | None = None
    """Harmless prompts that look harmful."""
    reports: tuple[ValidationReport, ...] = ()

    @property
    def evaluation(self) -> HeldOut:
        """The tables that only evaluation reads."""
        return HeldOut(
            prompts=self.held_out,
            text=self.held_out_text,
            demonstrations=self.held_out_demonstrations,
            red_team=self.red_team,
            benign=self.benign,
        )


class PolicyResult(StageResult):
    """A trained or imported policy."""

    model: ModelRef
    rollouts: DatasetRef | None = None
    """What an online aligner sampled, iteration by iteration (table `rollouts`)."""
    tokens: TokenCheck | None = None
    """What tokenisation did to the demonstrations, where it learnt from some."""


class ReferenceResult(StageResult):
    """What the reference policy says of the pairs (table `reference`)."""

    logprobs: DatasetRef


class CandidatesResult(StageResult):
    """Several responses per prompt (table `candidates`)."""

    candidates: DatasetRef


class PreferencesResult(StageResult):
    """Rankings as they were given, and the pairs derived from them."""

    rankings: DatasetRef | None = None
    preferences: DatasetRef
    judging: DatasetRef | None = None
    """Pairs that the evaluation's reward model alone learns from: their prompts, and all that are nearly the same, are
    not among those of `preferences`."""
    rater_weights: dict[str, float] = Field(default_factory=dict)
    """What a ranking by each rater counts; 1 for a rater who is not here."""


class Probe(Record):
    """Accuracy of the reward model on counterfactual pairs that differ in one flaw."""

    flaw: str
    accuracy: Interval
    pairs: int


class ProbeResult(StageResult):
    """What the reward model is worth on held-out pairs, and what it tells apart in otherwise equal responses."""

    quality: RewardQuality | None = None
    probes: tuple[Probe, ...] = ()
    """Empty where no world knows."""


class RewardResult(StageResult):
    """A reward model with its held-out accuracy and the baseline that it must beat."""

    model: ModelRef
    held_out: DatasetRef
    """The pairs of the prompts that it was not trained on (table `preferences`)."""
    tokens: TokenCheck | None = None
    """What tokenisation did to the pairs."""
    accuracy: Interval
    """On pairs of prompts that it was not trained on."""
    longer_baseline: Interval
    """Accuracy of always picking the longer response, on the same pairs."""
    score_mean: float
    """Mean raw score of SFT responses; consumers subtract it. Of an ensemble, the members' average."""
    score_std: float
    """Standard deviation of the same; consumers divide by it."""


class EvaluationResult(StageResult):
    """One policy's evaluation, with its sampled responses (table `samples`)."""

    evaluation: PolicyEvaluation
    samples: DatasetRef
    verdicts: DatasetRef | None = None
    """The judge's word on each prompt, against the SFT policy: 1, 0.5 or 0 (columns `prompt_id`, `outcome`)."""
    curve: tuple[CurvePoint, ...] = ()


class Champion(Record):
    """What a run's candidates have to beat."""

    version: int
    model: ModelRef
    candidate: str | None = None
    """The aligner of this run that made it, if one did."""


class Comparison(StageResult):
    """The judge's word on each prompt, against the champion (columns `prompt_id`, `outcome`)."""

    verdicts: DatasetRef


class Contest(Record):
    """What the candidates have to beat, and what the judge said of each against it."""

    champion: Champion | None = None
    """None: there is none, and the verdicts are against the SFT policy."""
    incumbent: EvaluationResult | None = None
    """The champion's evaluation on the same prompts."""
    verdicts: dict[str, DatasetRef]
    """By candidate."""


GateVerdict = Literal["pass", "fail", "inconclusive"]
"""Shown to be so, shown not to be so, or neither: the evidence does not reach."""


class GateRule(Record):
    """One rule of the gate: what was wanted, what was found, and the numbers behind the words."""

    name: str
    wanted: str
    found: str
    verdict: Literal["pass", "fail", "inconclusive", "not measured"]
    """`not measured` leaves the verdict on the candidate alone."""
    estimate: Interval | None = None
    """Each bound errs with probability `error`."""
    limit: float | None = None
    error: float | None = None


class GateDecision(StageResult):
    """The verdict on each candidate, and the one that may become champion."""

    rules: dict[str, tuple[GateRule, ...]]
    """Rules by aligner."""
    verdicts: dict[str, GateVerdict] = Field(default_factory=dict)
    """By aligner."""
    winner: str | None = None
    """The passing aligner with the highest lower bound; None: nobody passed."""
    champion: int = 0
    """Version of the champion that they were compared with; 0: there was none."""
    evidence: FileRef | None = None
    """All of this as JSON, with the digests of the answers that were compared."""


class Promotion(StageResult):
    """What the registry looks like after the run."""

    verdict: Literal["promoted", "refused", "waiting"]
    """`waiting`: a model passed the gate, and a person has the last word."""
    versions: dict[str, int] = Field(default_factory=dict)
    """Registered version of each aligner."""
    version: int | None = None
    """The version that won, if one did."""
    alias: str | None = None
    """What it holds now: `champion`, or `candidate` while it waits."""


class ReportResult(StageResult):
    """The page."""

    page: FileRef


class MetricPoint(Record):
    """One logged value."""

    key: str
    value: float
    step: int = Field(ge=0)


class StageRecord(Record):
    """One line of the run's story."""

    name: str
    status: Literal["ran", "reused", "failed"]
    seconds: float
    ended: float = 0.0
    """Seconds since the epoch."""
    run_id: str
    """MLflow run of the stage."""
    reused_from: str | None = None
    """MLflow run that computed it, when it was re-used."""
    round: int | None = None
    """The round that it belongs to, from 1; None for what belongs to all of them."""
    outputs: dict[str, Ref] = Field(default_factory=dict)
    inputs: dict[str, Ref] = Field(default_factory=dict)
    files: tuple[FileRef, ...] = ()
    """Files from outside of the store that it read."""
    metrics: dict[str, float] = Field(default_factory=dict)
    tokens: int = 0
    """Worked on in training or sampled, as far as the stage counts them."""
    sampled_tokens: int = 0
    """Response tokens drawn from a policy."""
    gradient_tokens: int = 0
    """Tokens, prompts included, that a model learnt from; each pass over them counts."""
    saved: float = 0.0
    """Seconds that it took where it was computed, if it was re-used."""
    peak_bytes: float = 0.0
    """Largest memory use: of the GPU's tensors, or of the whole process; 0 if nobody knows."""

    @property
    def stage(self) -> str:
        """Its name in the first round."""
        return self.name.removesuffix(f"-{self.round}") if (self.round or 1) > 1 else self.name


class StageEntry(Record):
    """What the store keeps of one stage of one run."""

    record: StageRecord
    result: dict[str, JsonValue]
    """The stage's result, as JSON."""
    points: tuple[MetricPoint, ...] = ()
    """Everything that it logged, step by step."""


class RunSummary(Record):
    """What `rlhf run --json` prints."""

    run_id: str
    stages: tuple[StageRecord, ...]
    evaluation: dict[str, PolicyEvaluation]
    promotion: Promotion
    report: str
