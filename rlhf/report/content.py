"""Everything that a page shows, and the sentences that sum it up."""

from datetime import datetime

from pydantic import Field

from rlhf.evaluation.frontier import diagnose
from rlhf.evaluation.judges import JUDGES
from schemas.config import RunConfig
from schemas.config.run import of_round
from schemas.estimates import RunEstimate
from schemas.evaluation import CurvePoint, PolicyEvaluation
from schemas.record import Record
from schemas.reports import GateDecision, Probe, Promotion, RewardResult, StageRecord
from schemas.reward_quality import RewardQuality
from schemas.validation import TokenCheck, ValidationReport

History = tuple[tuple[int, float], ...]
"""(step, value) of one metric."""


class Answer(Record):
    """One policy's response to a prompt."""

    policy: str
    text: str
    score: float
    gold: float | None = None
    right: bool | None = None
    rude: bool | None = None
    finished: bool = True
    kl: float | None = None
    """Of the response from the SFT policy, in nats."""
    pieces: tuple[tuple[str, float], ...] = ()
    """The text's tokens, each with its part of the KL; empty where that was not looked at."""

    @property
    def worth(self) -> float:
        """What it is worth to whoever knows best: the hidden truth, and else the reward model."""
        return self.score if self.gold is None else self.gold


class Turn(Record):
    """One message of a prompt."""

    role: str
    text: str


class PairedResponses(Record):
    """One held-out prompt with every policy's response, SFT's first."""

    prompt: tuple[Turn, ...]
    answers: tuple[Answer, ...]

    @property
    def marks(self) -> str:
        """What can be filtered by, in words."""
        first, *rest = self.answers
        found = {
            "better": any(answer.worth > first.worth for answer in rest),
            "worse": any(answer.worth < first.worth for answer in rest),
            "wrong": any(answer.right is False for answer in rest),
            "rude": any(answer.rude for answer in rest),
            "cut": any(not answer.finished for answer in self.answers),
        }
        return " ".join(name for name, present in found.items() if present)

    @property
    def disagreement(self) -> float:
        """How far reward model and truth part on what an aligner changed; without a truth, how far policies part."""
        first, *rest = self.answers
        if any(answer.gold is None for answer in self.answers):
            scores = [answer.score for answer in self.answers]
            return max(scores) - min(scores)
        gains = [(answer.score - first.score, answer.worth - first.worth) for answer in rest]
        return max((abs(score - gold) for score, gold in gains), default=0.0)

    @property
    def distance(self) -> float:
        """The largest KL among the answers, in nats."""
        return max((answer.kl or 0.0 for answer in self.answers), default=0.0)


class ReportContent(Record):
    """What happened in one run; text in it may come from a model and is never trusted."""

    title: str
    config: RunConfig
    stages: tuple[StageRecord, ...]
    validation: tuple[ValidationReport, ...] = ()
    tokens: dict[str, TokenCheck] = Field(default_factory=dict)
    """What tokenisation did to the tables, by stage."""
    histories: dict[str, dict[str, History]] = Field(default_factory=dict)
    """Logged metrics by stage and name."""
    reward: RewardResult | None = None
    reward_quality: RewardQuality | None = None
    probes: tuple[Probe, ...] = ()
    sft: PolicyEvaluation
    evaluations: dict[str, PolicyEvaluation]
    """By aligner."""
    curves: dict[str, tuple[CurvePoint, ...]] = Field(default_factory=dict)
    """By online aligner."""
    responses: tuple[PairedResponses, ...] = ()
    gate: GateDecision
    promotion: Promotion
    run_id: str
    """MLflow's parent run."""
    command: str
    """Repeats the run, overrides included."""
    finished_at: datetime | None = None
    estimate: RunEstimate | None = None
    """What `rlhf estimate` expected of exactly this recipe, if it was asked."""


def percent(share: float | None) -> str:
    """Write a share as a percentage with one decimal."""
    return "not measured" if share is None else f"{share:.1%}"


def verdict(content: ReportContent) -> str:
    """Say in one sentence what the gate decided."""
    held = {version: name for name, version in content.promotion.versions.items()}
    winner = held.get(content.promotion.version or 0, content.gate.winner)
    if content.promotion.verdict == "promoted" and winner is not None:
        return (
            f"{winner.upper()} passed every rule and is now the {content.promotion.alias} "
            f"(version {content.promotion.version})."
        )
    if content.promotion.verdict == "waiting" and winner is not None:
        return f"{winner.upper()} passed every rule and waits for approval (version {content.promotion.version})."
    if winner is not None:
        return f"{winner.upper()} passed every rule, but the registry was left as it was."
    open_ = [name.upper() for name, found in content.gate.verdicts.items() if found == "inconclusive"]
    unsure = f" The evidence on {' and '.join(open_)} does not reach for a verdict." if open_ else ""
    return f"No model passed the gate; the champion stays as it was.{unsure}"


def summary(content: ReportContent) -> tuple[str, ...]:
    """Tell the run in plain sentences, good and bad alike."""
    level = f"{content.config.evaluate.confidence:.0%}"
    judge = JUDGES[content.config.evaluate.judge].partition(",")[0]
    sentences = [
        f"Judged by {judge}, {name.upper()}'s answers win against the SFT model's on "
        f"{percent(found.win_rate)} of {found.num_prompts} held-out prompts "
        f"({level} interval {percent(found.win_rate_low)} to {percent(found.win_rate_high)})."
        for name, found in content.evaluations.items()
    ]
    for name, found in content.evaluations.items():
        if found.right is not None and content.sft.right is not None:
            rude = (
                f", rude ones from {percent(content.sft.rude.value)} to {percent(found.rude.value)}"
                if found.rude is not None and content.sft.rude is not None
                else ""
            )
            sentences.append(
                f"With {name.upper()}, right answers went from {percent(content.sft.right.value)} "
                f"to {percent(found.right.value)}{rude}."
            )
    if not content.config.evaluate.independent:
        sentences.append(
            "That judge is what the aligners were trained on, so these win rates show that "
            "optimisation worked, not that people would agree."
        )
    return (
        *sentences,
        *(over_optimisation(name, curve) for name, curve in content.curves.items() if diagnose(curve)),
    )


def feedback(content: ReportContent) -> str | None:
    """Say how many comparisons each round learnt from; None when nothing was collected."""
    said = []
    for stage in content.stages:
        if stage.stage != "preferences" or "pairs" not in (found := stage.metrics):
            continue
        where = f" in round {stage.round}" if content.config.labelling.rounds > 1 else ""
        ranked = f" from {found['rankings']:,.0f} rankings" if "rankings" in found else ""
        ties = f"; {percent(found['ties'])} were ties" if "ties" in found else ""
        said.append(
            f"Comparisons{where}: {found['pairs']:,.0f} pairs of a chosen and a rejected answer{ranked}{ties}."
        )
    return " ".join(said) or None


class RoundRow(Record):
    """One line of the table of rounds."""

    number: int
    rankings: float
    """Of this round."""
    pairs: float
    """Of all rounds so far: what this round's models learnt from."""
    accuracy: float | None = None
    """Of this round's reward model, on held-out pairs."""
    win_rates: dict[str, PolicyEvaluation] = Field(default_factory=dict)
    """By aligner."""


def rounds(content: ReportContent) -> tuple[RoundRow, ...]:
    """Return what each round asked and reached; nothing for a run of one round."""
    if content.config.labelling.rounds == 1:
        return ()
    rows: list[RoundRow] = []
    pairs = 0.0
    for number in range(1, content.config.labelling.rounds + 1):
        done = {stage.stage: stage for stage in content.stages if stage.round == number}
        if "preferences" not in done:
            continue
        collected, learnt = done["preferences"].metrics, done.get("reward")
        pairs += collected.get("pairs", 0.0)
        rows.append(
            RoundRow(
                number=number,
                rankings=collected.get("rankings", 0.0),
                pairs=pairs,
                accuracy=learnt.metrics.get("held_out_accuracy") if learnt else None,
                win_rates={
                    aligner.name: found
                    for aligner in content.config.aligners
                    if (found := content.evaluations.get(of_round(aligner.name, number)))
                },
            )
        )
    return tuple(rows)


def weakest_probe(content: ReportContent) -> str | None:
    """Name the flaw that the reward model overlooks most, and say whether it does no better than chance."""
    if not content.probes:
        return None
    probe = min(content.probes, key=lambda probe: probe.accuracy.value)
    blind = (
        ", no better than chance: expect nothing from training against it"
        if probe.accuracy.low <= 0.5
        else ""
    )
    return f"The weakest is {probe.flaw.replace('_', ' ')} ({percent(probe.accuracy.value)}{blind})."


def over_optimisation(name: str, curve: tuple[CurvePoint, ...]) -> str:
    """Say whether the true quality went along with the score."""
    found = diagnose(curve)
    if found is None:
        return (
            f"{name.upper()}: gold is not known along this curve, so over-optimisation cannot be ruled out."
        )
    if found.over_optimised:
        return (
            f"{name.upper()} over-optimised: after iteration {found.peak_iteration} its score still rose "
            f"from {found.peak_score:.2f} to {found.final_score:.2f} while gold fell "
            f"from {found.peak_gold:.2f} to {found.final_gold:.2f}."
        )
    return (
        f"{name.upper()} shows no over-optimisation: gold ended at {found.final_gold:.2f}, "
        f"its best stretch was {found.peak_gold:.2f}."
    )
