import pytest

from schemas.config.knobs import Knob
from schemas.sweep import SweepReport, SweepRow


def _report(*rows: tuple[float, int, float | None]) -> SweepReport:
    return SweepReport(
        sweep_id="s",
        recipe="micro",
        knobs=(Knob(key="ppo.kl_coef", values=(0.1, 0.2)),),
        objective="ppo/gold",
        rows=tuple(
            SweepRow(
                setting={"ppo.kl_coef": value},
                seed=seed,
                status="failed" if gold is None else "done",
                metrics={} if gold is None else {"ppo/gold": gold},
            )
            for value, seed, gold in rows
        ),
    )


def test_a_setting_is_the_mean_over_its_seeds_with_the_standard_error_by_hand():
    report = _report((0.1, 0, 1.0), (0.2, 0, 1.5), (0.1, 1, 2.0), (0.2, 1, 1.7))
    first, second = report.settings
    # Variance of (1, 2) is 0.5, over 2 seeds 0.25, so 0.5; of (1.5, 1.7) it is 0.02, so 0.1.
    assert (first.mean, first.standard_error) == pytest.approx((1.5, 0.5))
    assert (second.mean, second.standard_error) == pytest.approx((1.6, 0.1))
    assert report.best == second


def test_a_setting_that_lost_a_seed_does_not_win_by_its_luck():
    report = _report((0.1, 0, 1.0), (0.1, 1, 1.0), (0.2, 0, 9.0), (0.2, 1, None))
    assert report.best is not None
    assert report.best.setting == {"ppo.kl_coef": 0.1}
    assert report.settings[1].standard_error is None


def test_there_is_no_best_when_all_failed():
    assert _report((0.1, 0, None)).best is None
