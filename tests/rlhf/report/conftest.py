import math
from datetime import UTC, datetime

import pytest

from rlhf.report.content import Answer, PairedResponses, ReportContent, Turn
from schemas.config import EvaluateConfig, GateConfig, RunConfig
from schemas.evaluation import CurvePoint, PolicyEvaluation
from schemas.record import Interval
from schemas.refs import DatasetRef, ModelRef
from schemas.reports import GateDecision, GateRule, Probe, Promotion, RewardResult, StageRecord
from schemas.reward_quality import Calibration, Disagreement, Mistake, ReliabilityBin, RewardQuality, Slice
from schemas.validation import Finding, ValidationReport


def around(value: float, half: float) -> Interval:
    return Interval(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def policy(
    name: str, win: float | None, gold: float, right: float, rude: float, kl: float
) -> PolicyEvaluation:
    return PolicyEvaluation(
        name=name,
        win_rate=win,
        win_rate_low=win and win - 0.034,
        win_rate_high=win and win + 0.033,
        kl=kl,
        score=Interval(value=gold * 0.7, low=gold * 0.7 - 0.06, high=gold * 0.7 + 0.06),
        gold=Interval(value=gold, low=gold - 0.08, high=gold + 0.08),
        right=around(right, 0.04),
        rude=around(rude, 0.01),
        length=23.4,
        eos_rate=0.994,
        num_prompts=512,
    )


TIMES = {
    "validate": 4.1,
    "pretrain": 71.0,
    "sft": 16.4,
    "sample": 11.2,
    "preferences": 2.3,
    "reward": 19.8,
    "ppo": 58.3,
    "dpo": 13.9,
    "evaluate-sft": 3.1,
    "evaluate-ppo": 3.4,
    "evaluate-dpo": 3.2,
    "gate": 0.1,
    "register": 1.8,
}


def stages() -> tuple[StageRecord, ...]:
    data = DatasetRef(uri="file:///store/sha256/aa", digest="sha256:" + "a1" * 32, kind="prompts", rows=4096)
    model = ModelRef(uri="file:///store/sha256/bb", digest="sha256:" + "b2" * 32, role="policy")
    return tuple(
        StageRecord(
            name=name,
            status="reused" if name in {"validate", "pretrain", "sft"} else "ran",
            seconds=seconds,
            run_id=f"{index:032x}",
            reused_from="c" * 32 if name in {"validate", "pretrain", "sft"} else None,
            inputs={"prompts": data},
            outputs={"model": model},
        )
        for index, (name, seconds) in enumerate(TIMES.items())
    )


def decay(steps: int, start: float, end: float) -> tuple[tuple[int, float], ...]:
    return tuple(
        (step, end + (start - end) * math.exp(-5 * step / steps) + 0.03 * math.sin(step * 1.7))
        for step in range(1, steps + 1, 5)
    )


def histories() -> dict[str, dict[str, tuple[tuple[int, float], ...]]]:
    rising = tuple((i, 1.8 * (1 - math.exp(-i / 9)) + 0.06 * math.sin(i * 2.1)) for i in range(30))
    return {
        "pretrain": {"loss": decay(900, 6.2, 1.4)},
        "sft": {"loss": decay(300, 1.9, 0.62)},
        "reward": {"loss": decay(400, 0.70, 0.31), "accuracy": decay(400, 0.5, 0.86)},
        "ppo": {
            "score": rising,
            "kl": tuple((i, 0.45 * i + 0.3 * math.sin(i)) for i in range(30)),
            "clip_fraction": tuple((i, 0.1 + 0.02 * math.sin(i)) for i in range(30)),
        },
        "dpo": {"loss": decay(100, 0.69, 0.41), "accuracy": decay(100, 0.5, 0.81)},
    }


def curve() -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(
            iteration=i,
            kl=0.45 * i + 0.3 * math.sin(i),
            score=1.8 * (1 - math.exp(-i / 9)) + 0.06 * math.sin(i * 2.1),
            gold=1.0 + 0.95 * (1 - math.exp(-i / 8)) + 0.08 * math.sin(i * 1.3),
        )
        for i in range(30)
    )


def responses() -> tuple[PairedResponses, ...]:
    return (
        PairedResponses(
            prompt=(Turn(role="user", text="When does the bakery on Mill Street open on Sunday?"),),
            answers=(
                Answer(
                    policy="sft",
                    text="It opens at 9. By the way, honey never spoils.",
                    score=-0.31,
                    gold=0.42,
                ),
                Answer(
                    policy="ppo",
                    text="Good morning! The bakery opens at 9 on Sunday. Is there anything else?",
                    score=1.62,
                    gold=2.10,
                ),
                Answer(policy="dpo", text="Hello! It opens at 9 on Sunday.", score=1.31, gold=1.95),
            ),
        ),
        PairedResponses(
            prompt=(
                Turn(role="user", text="Do you sell notebooks?"),
                Turn(role="assistant", text="We do, at 4 dollars each."),
                Turn(role="user", text="What do three of them cost?"),
            ),
            answers=(
                Answer(policy="sft", text="Can you not multiply? 12 dollars.", score=-1.90, gold=-0.35),
                Answer(
                    policy="ppo",
                    text="Thank you for asking! Three notebooks cost 12 dollars.",
                    score=1.70,
                    gold=2.20,
                ),
                Answer(
                    policy="dpo",
                    text="They cost 12 dollars, and the weather, the weather",
                    score=0.20,
                    gold=0.61,
                    finished=False,
                ),
            ),
        ),
    )


def rules(win: str, *, passed: bool) -> tuple[GateRule, ...]:
    return (
        GateRule(
            name="win rate over SFT",
            wanted="lower bound of the 95% interval above 50.0%",
            found=win,
            verdict="pass" if passed else "fail",
        ),
        GateRule(name="KL budget", wanted="at most 30.0 nats", found="12.3 nats", verdict="pass"),
        GateRule(name="rude answers", wanted="at most 2.0%", found="0.0%", verdict="pass"),
    )


def validation() -> tuple[ValidationReport, ...]:
    return (
        ValidationReport(
            kind="demonstrations",
            source="the generated helpdesk world",
            format="Parquet",
            verdict="accept",
            rows=4000,
            kept=4000,
            quarantined=0,
        ),
        ValidationReport(
            kind="preferences",
            source="pairs.jsonl.gz",
            format="chosen and rejected dialogues, JSON Lines, gzip",
            verdict="quarantine_rows",
            rows=2312,
            kept=2290,
            quarantined=19,
            dropped=3,
            findings=(
                Finding(
                    kind="identical_pair",
                    row=7,
                    line=8,
                    field="rejected",
                    message="chosen and rejected are equal",
                ),
            ),
        ),
    )


def reward() -> RewardResult:
    return RewardResult(
        model=ModelRef(uri="file:///store/r", digest="sha256:" + "d4" * 32, role="reward"),
        held_out=DatasetRef(
            uri="file:///store/h", digest="sha256:" + "d5" * 32, kind="preferences", rows=900
        ),
        accuracy=around(0.853, 0.021),
        longer_baseline=around(0.571, 0.029),
        score_mean=0.1,
        score_std=1.3,
    )


def quality() -> RewardQuality:
    """A model that is right more often than it is sure, and one mistake with hostile text."""
    bins = (
        ReliabilityBin(confidence=0.6, accuracy=0.7, pairs=40),
        ReliabilityBin(confidence=0.9, accuracy=0.95, pairs=60),
    )
    return RewardQuality(
        pairs=100,
        prompts=40,
        accuracy=around(0.853, 0.03),
        longer_baseline=around(0.571, 0.04),
        slices=(Slice(by="length", name="matched", pairs=30, accuracy=around(0.8, 0.08)),),
        length_correlation=0.31,
        partial_length_correlation=0.12,
        calibration=Calibration(
            error=0.07, temperature=0.8, fitted_error=0.02, bins=bins, fitted_bins=bins[::-1]
        ),
        score_edges=(-2.0, 0.0, 2.0),
        chosen_counts=(20.0, 80.0),
        rejected_counts=(70.0, 30.0),
        mistakes=(
            Mistake(
                prompt="user: When do you open?",
                chosen="At nine. <script>alert(1)</script>",
                rejected="I do not care.",
                chosen_score=-0.4,
                rejected_score=1.7,
            ),
        ),
        disagreement=Disagreement(when_right=0.2, when_wrong=0.5, finds_mistakes=0.81),
    )


def probes() -> tuple[Probe, ...]:
    return tuple(
        Probe(flaw=flaw, accuracy=around(value, 0.05), pairs=200)
        for flaw, value in (
            ("rude", 0.99),
            ("wrong_fact", 0.74),
            ("rambling", 0.93),
            ("trivia", 0.90),
            ("discourteous", 0.96),
        )
    )


def gate() -> GateDecision:
    return GateDecision(
        rules={
            "ppo": rules("77.5%, lower bound 74.1%", passed=True),
            "dpo": rules("74.1%, lower bound 70.7%", passed=True),
        },
        verdicts={"ppo": "pass", "dpo": "pass"},
        winner="ppo",
    )


@pytest.fixture
def content() -> ReportContent:
    return ReportContent(
        title="Helpdesk: from raw text to an assistant",
        config=RunConfig(evaluate=EvaluateConfig(), gate=GateConfig(min_win_rate_low=0.55)),
        stages=stages(),
        validation=validation(),
        histories=histories(),
        reward=reward(),
        probes=probes(),
        reward_quality=quality(),
        sft=policy("sft", None, 0.97, 0.698, 0.09, 0.0),
        evaluations={
            "ppo": policy("ppo", 0.775, 1.93, 0.690, 0.0, 12.3),
            "dpo": policy("dpo", 0.741, 1.78, 0.766, 0.004, 8.8),
        },
        curves={"ppo": curve()},
        responses=responses(),
        gate=gate(),
        promotion=Promotion(verdict="promoted", versions={"ppo": 3, "dpo": 4}, version=3, alias="champion"),
        run_id="0123456789abcdef0123456789abcdef",
        command="rlhf run recipes/helpdesk.yaml seed=0",
        finished_at=datetime(2026, 11, 23, 17, 0, tzinfo=UTC),
    )
