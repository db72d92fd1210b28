import numpy as np
import pytest

from rlhf.evaluation.frontier import diagnose
from schemas.evaluation import CurvePoint


def curve(gold: list[float], score: list[float], noise: float = 0.0) -> list[CurvePoint]:
    jitter = np.random.default_rng(5).normal(scale=noise, size=len(gold))
    return [
        CurvePoint(iteration=i, kl=float(i), score=s, gold=g + float(e))
        for i, (g, s, e) in enumerate(zip(gold, score, jitter, strict=True))
    ]


RISING = list(np.linspace(0.0, 3.0, 30))


def test_gold_that_falls_while_the_score_rises_is_over_optimisation():
    gold = [*np.linspace(1.0, 2.0, 15), *np.linspace(2.0, 0.8, 15)]
    found = diagnose(curve(gold, RISING, noise=0.05))
    assert found is not None
    assert found.over_optimised
    assert 14 <= found.peak_iteration <= 19
    assert found.final_gold == pytest.approx(1.02, abs=0.1)


def test_gold_that_rises_with_the_score_is_not():
    found = diagnose(curve(list(np.linspace(1.0, 2.0, 30)), RISING, noise=0.05))
    assert found is not None
    assert not found.over_optimised


@pytest.mark.parametrize("seed", range(20))
def test_noise_on_a_plateau_is_not(seed: int):
    gold = [*np.linspace(1.0, 2.0, 10), *[2.0] * 20]
    jitter = np.random.default_rng(seed).normal(scale=0.1, size=30)
    found = diagnose(curve([g + float(e) for g, e in zip(gold, jitter, strict=True)], RISING))
    assert found is not None
    assert not found.over_optimised


def test_a_score_that_falls_with_gold_is_a_collapse_of_another_kind():
    found = diagnose(curve(list(np.linspace(2.0, 1.0, 30)), list(np.linspace(3.0, 0.0, 30))))
    assert found is not None
    assert not found.over_optimised


def test_there_is_no_diagnosis_without_gold_or_with_too_few_points():
    assert diagnose(curve([1.0] * 4, [1.0] * 4)) is None
    assert diagnose([CurvePoint(iteration=i, kl=0.0, score=0.0) for i in range(10)]) is None
