"""Alarms fire past their limit and not before it, and do what the recipe says."""

import logging
from pathlib import Path

import polars as pl
import pytest

from rlhf.models.precision import Precision
from rlhf.training import ppo
from rlhf.training.guard import alarms
from rlhf.training.step import StepMetrics
from schemas.config import AlarmConfig, GuardConfig, PPOConfig

CALM = {"kl": 5.0, "entropy": 1.0, "eos_rate": 0.9, "identical_share": 0.1, "response_length": 20.0}
PROMPTS = pl.DataFrame(
    {
        "prompt_id": [str(row) for row in range(4)],
        "prompt": [[{"role": "user", "content": "hi " * (row + 1)}] for row in range(4)],
    }
)


@pytest.mark.parametrize(
    ("name", "metric", "limit", "quiet", "loud"),
    [
        ("kl_above", "kl", 10.0, 10.0, 10.1),
        ("entropy_below", "entropy", 0.5, 0.5, 0.4),
        ("eos_below", "eos_rate", 0.8, 0.8, 0.7),
        ("identical_above", "identical_share", 0.3, 0.3, 0.4),
        ("length_drift", "response_length", 2.0, 40.0, 41.0),
        ("length_drift", "response_length", 2.0, 10.0, 9.0),
        ("agreement_falls", "agreement_fall", 2.0, 2.0, 2.1),
        ("agreement_stalls", "agreement_rise", 1.5, 1.5, 1.4),
    ],
)
def test_an_alarm_fires_past_its_limit_only(name: str, metric: str, limit: float, quiet: float, loud: float):
    config = GuardConfig.model_validate({name: {"limit": limit, "action": "stop"}})
    assert alarms(CALM | {metric: quiet}, CALM, config) == []
    (alarm,) = alarms(CALM | {metric: loud}, CALM, config)
    assert alarm.action == "stop"
    assert f"{limit:g}" in alarm.message
    assert alarms(CALM | {metric: loud}, CALM, GuardConfig.model_validate({name: None})) == []


@pytest.mark.parametrize(
    ("action", "steps", "coefficients"),
    [("warn", 3, [0.1, 0.1, 0.1]), ("stop", 1, [0.1]), ("raise_kl", 3, [0.1, 0.15, 0.225])],
)
def test_an_alarm_warns_stops_or_raises_the_coefficient(
    folders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, action: str, steps: int,
    coefficients: list[float],
):  # fmt: skip
    limit = AlarmConfig.model_validate({"limit": 100.0, "action": action})
    config = PPOConfig(
        iterations=3, batch_size=4, minibatch_size=4, epochs=1, max_new_tokens=6,
        guard=GuardConfig(entropy_below=limit),
    )  # fmt: skip
    heard: list[StepMetrics] = []
    with caplog.at_level(logging.WARNING, logger="rlhf"):
        for _ in range(2):  # the second call finds a finished run, a stopped one too
            heard.clear()
            ppo.fit(
                *folders, PROMPTS, config, seed=0, precision=Precision(threads=1, dtype="fp32"),
                on_step=heard.append, out=tmp_path / "out", checkpoints=tmp_path / "state",
            )  # fmt: skip
            assert len(heard) == steps
    assert [step.metrics["kl_coef"] for step in heard] == pytest.approx(coefficients)
    assert len([record for record in caplog.records if "entropy" in record.getMessage()]) == steps
