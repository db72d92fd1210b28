"""Alarms of a run of PPO: what its own metrics say about collapse and over-optimisation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf.algorithms.kl import adapt_coefficient
from schemas.config.aligners.online import AlarmConfig, GuardConfig, OnlineSection

RAISE = 1.5
"""Factor of the KL coefficient when an alarm raises it."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A limit that an iteration has passed."""

    message: str
    action: str


def alarms(metrics: Mapping[str, float], first: Mapping[str, float], config: GuardConfig) -> list[Alarm]:
    """Return the alarms of an iteration's metrics, given those of the first iteration."""
    drift = metrics["response_length"] / first["response_length"]
    watched: list[tuple[str, AlarmConfig | None, float, bool]] = [
        ("KL per response", config.kl_above, metrics["kl"], True),
        ("entropy per token", config.entropy_below, metrics["entropy"], False),
        ("share of finished responses", config.eos_below, metrics["eos_rate"], False),
        ("share of identical responses", config.identical_above, metrics["identical_share"], True),
        ("factor of the response length", config.length_drift, max(drift, 1 / drift), True),
        # Measured in some iterations only.
        (
            "fall of the agreement with held-out preferences, in standard errors,",
            config.agreement_falls,
            metrics.get("agreement_fall", 0.0),
            True,
        ),
        (
            "rise of the agreement with held-out preferences over two evaluations, in standard errors,",
            config.agreement_stalls,
            metrics.get("agreement_rise", math.inf),
            False,
        ),
    ]
    found = []
    for name, alarm, value, is_ceiling in watched:
        if alarm is not None and (value > alarm.limit if is_ceiling else value < alarm.limit):
            side = "above" if is_ceiling else "below"
            found.append(Alarm(f"{name} is {value:.4g}, {side} its limit {alarm.limit:g}", alarm.action))
    return found


def stops(raised: Sequence[Alarm]) -> bool:
    """Return whether one of the alarms ends the training."""
    return any(alarm.action == "stop" for alarm in raised)


def next_coefficient(kl_coef: float, kl: float, raised: Sequence[Alarm], config: OnlineSection) -> float:
    """Return the KL coefficient of the next iteration, given the nats per response of this one."""
    if config.kl.target is not None:
        kl_coef = adapt_coefficient(
            kl_coef,
            kl=kl,
            target=config.kl.target,
            horizon=config.kl.horizon,
            num_responses=config.batch_size,
        )
    return kl_coef * RAISE if any(alarm.action == "raise_kl" for alarm in raised) else kl_coef
