import pytest

from rlhf.report.content import ReportContent
from rlhf.report.cost import cost, estimate_said
from rlhf.report.note import note
from schemas.config import CostConfig
from schemas.estimates import RunEstimate, Shape, StageEstimate
from schemas.reports import StageRecord


@pytest.fixture
def measured(content: ReportContent) -> ReportContent:
    stages = (
        StageRecord(name="sft", status="reused", seconds=0.0, saved=50.0, run_id="1"),
        StageRecord(name="ppo", status="ran", seconds=90.0, run_id="2", tokens=9000, peak_bytes=2.0**30),
        StageRecord(name="dpo", status="ran", seconds=30.0, run_id="3", tokens=600),
        StageRecord(name="gate", status="ran", seconds=1.0, run_id="4"),
    )
    expected = RunEstimate(
        recipe="helpdesk", config_digest="d", made=0.0, device="here", available=0.0,
        shape=Shape(parameters=1, layers=1, hidden=1, heads=1, key_values=1, vocabulary=1),
        stages=(
            StageEstimate(name="sft", seconds=60.0),
            StageEstimate(name="ppo", seconds=60.0, memory={"policy": 3.0 * 2**29}),
            StageEstimate(name="dpo", seconds=40.0),
            StageEstimate(name="gate"),
        ),
    )  # fmt: skip
    config = content.config.model_copy(
        update={"cost": CostConfig(price_per_hour=360, watts=1000, price_per_kwh=1.8, currency="EUR")}
    )
    return content.model_copy(update={"stages": stages, "estimate": expected, "config": config})


def test_time_tokens_energy_and_money_by_hand(measured: ReportContent):
    found = cost(measured)
    assert found.seconds == 121
    assert found.saved == 50
    assert found.tokens == 9600
    # A kilowatt for 121 seconds; ten cents a second of hire, and 1.8 a kilowatt-hour is 0.0005 a second.
    assert found.kilowatt_hours == pytest.approx(121 / 3600)
    assert found.price == pytest.approx(121 * 0.1005)
    assert found.saved_price == pytest.approx(50 * 0.1005)
    assert found.currency == "EUR"


def test_the_estimate_is_held_against_the_stages_that_ran_and_were_estimated(measured: ReportContent):
    found = cost(measured)
    assert (found.expected, found.compared) == (100.0, 120.0)
    factors = {row.name: row.factor for row in found.rows}
    assert factors == {"ppo": 1.5, "dpo": 0.75, "gate": None}
    said = estimate_said(found)
    assert said is not None
    assert "1.20 times as long" in said
    assert "1 min 40 s" in said


def test_without_estimate_and_prices_nothing_is_made_up(content: ReportContent):
    found = cost(content)
    assert (found.expected, found.price, found.kilowatt_hours) == (None, None, None)
    assert estimate_said(found) is None


def test_the_page_and_the_note_show_it(measured: ReportContent):
    from rlhf.report.page import render

    page = render(measured)
    for shown in (
        "How far the estimate was off",
        "1.20 times as long",
        "12.16 EUR",
        "0.0336 kWh",
        "1.50",
        "1.0 GiB",
    ):
        assert shown in page, shown
    text = note(measured)
    assert "1.20 times as long" in text
    assert "50 s saved" in text
    assert "| ppo | 77.5% (74.1% to 80.8%) | 12.3 |" in text
